"""Window attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Window attention",
    source="Liu et al., Swin Transformer, 2021, Eq. 4",
    year=2021,
    sizes={"S": 2, "T": 2, "U": 2, "C": 4, "E": 2},
    degree=None,
    reach={"H": "window", "W": "window"},
)


def swin_window() -> Spec:
    """Return the attention of Swin: E heads within windows of U x U positions, with a bias for each difference of
    places.

    Source: Liu et al., Swin Transformer, 2021, Eq. 4.

    Prefer it to `multi_head` on large maps: each position is compared with the U² of its window. Shifted windows are
    this layer on a rolled map.
    """
    return Spec("""
        x[H,W,C]; where H = S*U; where W = T*U; where C = E*D
        where i : S; where j : T; where u, v, s, t : U; where h : E; where d : D
        q[i,j,u,v,h,d] = x[(i u),(j v),c]*wq[c,(h d)]
        k[i,j,u,v,h,d] = x[(i u),(j v),c]*wk[c,(h d)]
        g[i,j,u,v,h,d] = x[(i u),(j v),c]*wv[c,(h d)]
        p[h,i,j,u,v,s,t] = softmax[s,t](1/sqrt(D) * q[i,j,u,v,h,d]*k[i,j,s,t,h,d] + bias[h,u-s,v-t])
        y[(i u),(j v),b] = p[h,i,j,u,v,s,t]*g[i,j,s,t,h,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, bias, wo, U, E):
    """Window by window, head by head."""
    y, places = np.zeros((*x.shape[:2], wo.shape[1])), [(u, v) for u in range(U) for v in range(U)]
    for i, j in np.ndindex(x.shape[0] // U, x.shape[1] // U):
        window = np.array([x[i * U + u, j * U + v] for u, v in places])
        parts = []
        for h, (q, k, v) in enumerate(zip(*(heads(window @ w, E) for w in (wq, wk, wv)), strict=True)):
            shift = [[bias[h, a - c + U - 1, b - d + U - 1] for c, d in places] for a, b in places]
            parts.append(attend(q, k, v, np.array(shift)))
        for (u, v), row in zip(places, np.concatenate(parts, axis=1) @ wo, strict=True):
            y[i * U + u, j * U + v] = row
    return y
