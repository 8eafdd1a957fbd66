"""Spatial-reduction attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Spatial-reduction attention",
    source="Wang et al., Pyramid Vision Transformer, 2021, section 3.3",
    year=2021,
    sizes={"S": 2, "T": 2, "U": 2, "C": 4, "E": 2},
    degree=None,
    reach={"H": "all", "W": "all"},
)


def spatial_reduction() -> Spec:
    """Return attention to keys and values of blocks: U x U positions become one by a linear map before the projections.

    Source: Wang et al., Pyramid Vision Transformer, 2021, section 3.3.

    Prefer it to `multi_head` on large maps: keys are U² times fewer. The published norm behind the reduction is left
    out.
    """
    return Spec("""
        x[H,W,C]; where H = S*U; where W = T*U; where C = E*D
        where k : S; where l : T; where u, v : U; where h : E; where d : D; where f : C
        z[k,l,f] = x[(k u),(l v),c]*ws[u,v,c,f]
        q[i,j,h,d] = x[i,j,c]*wq[c,(h d)]
        p[h,i,j,k,l] = softmax[k,l](1/sqrt(D) * q[i,j,h,d]*z[k,l,f]*wk[f,(h d)])
        y[i,j,b] = p[h,i,j,k,l]*z[k,l,f]*wv[f,(h d)]*wo[(h d),b]
    """)


def reference(x, ws, wq, wk, wv, wo, U, E):
    """Reduce the map, then attend to the blocks."""
    blocks = []
    for k, l in np.ndindex(x.shape[0] // U, x.shape[1] // U):
        blocks.append(sum(x[k * U + u, l * U + v] @ ws[u, v] for u, v in np.ndindex(U, U)))
    z, flat = np.array(blocks), x.reshape(-1, x.shape[2])
    parts = zip(heads(flat @ wq, E), heads(z @ wk, E), heads(z @ wv, E), strict=True)
    y = np.concatenate([attend(q, k, v) for q, k, v in parts], axis=1) @ wo
    return y.reshape(*x.shape[:2], -1)
