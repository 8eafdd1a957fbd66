"""Stand-alone self-attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Stand-alone self-attention",
    source="Ramachandran et al., Stand-Alone Self-Attention in Vision Models, 2019, Eq. 3",
    year=2019,
    sizes={"H": 3, "W": 3, "C": 3, "R": 2},
    degree=None,
    reach={"H": 1, "W": 1},
)


def stand_alone() -> Spec:
    """Return attention to the 3 x 3 places around each position, each query meeting the key and an embedding of the
    offset: half of its channels for the row, half for the column.

    Source: Ramachandran et al., Stand-Alone Self-Attention in Vision Models, 2019, Eq. 3.

    Prefer it to a 3 x 3 convolution where the weights are to depend on the content. Places outside of the map are
    left out.
    """
    return Spec("""
        x[H,W,C]; where u, v : -1..1; where r : R
        qr[i,j,r] = x[i,j,c]*wq[c,(0 r)]
        qc[i,j,r] = x[i,j,c]*wq[c,(1 r)]
        kr[i,j,r] = x[i,j,c]*wk[c,(0 r)]
        kc[i,j,r] = x[i,j,c]*wk[c,(1 r)]
        p[i,j,u,v] = softmax[u,v](qr[i,j,r]*kr[i+u,j+v,r] + qr[i,j,r]*er[u,r]
                                + qc[i,j,r]*kc[i+u,j+v,r] + qc[i,j,r]*ec[v,r])
        g[i,j,b] = x[i,j,c]*wv[c,b]
        y[i,j,b] = p[i,j,u,v]*g[i+u,j+v,b]
    """)


def reference(x, wq, wk, er, ec, wv):
    """Position by position, over the places that there are."""
    y = np.zeros((*x.shape[:2], wv.shape[1]))
    for i, j in np.ndindex(x.shape[:2]):
        near = [(k, l) for k, l in np.ndindex(x.shape[:2]) if abs(k - i) <= 1 and abs(l - j) <= 1]
        offsets = [np.concatenate([er[k - i + 1], ec[l - j + 1]]) for k, l in near]
        scores = [x[i, j] @ wq @ (x[k, l] @ wk + o) for (k, l), o in zip(near, offsets, strict=True)]
        y[i, j] = softmax(np.array(scores)) @ np.array([x[k, l] @ wv for k, l in near])
    return y
