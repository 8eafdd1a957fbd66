"""Neighbourhood attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Neighbourhood attention",
    source="Hassani et al., Neighborhood Attention Transformer, 2023, Eq. 2 to 4",
    year=2023,
    sizes={"H": 4, "W": 3, "C": 3, "D": 2},
    degree=None,
    reach={"H": 1, "W": 1},
)


def neighbourhood() -> Spec:
    """Return attention to the 3 x 3 places around each position, without those outside of the map, with a bias for each
    offset.

    Source: Hassani et al., Neighborhood Attention Transformer, 2023, Eq. 2 to 4.

    Prefer it to `swin_window` where the neighbourhood is to move with the position. The published windows stay inside
    of the map at its borders; these are cut off there.
    """
    return Spec("""
        x[H,W,C]; where u, v : -1..1; where d : D
        q[i,j,d] = x[i,j,c]*wq[c,d]
        k[i,j,d] = x[i,j,c]*wk[c,d]
        g[i,j,b] = x[i,j,c]*wv[c,b]
        p[i,j,u,v] = softmax[u,v](1/sqrt(D) * q[i,j,d]*k[i+u,j+v,d] + bias[u,v])
        y[i,j,b] = p[i,j,u,v]*g[i+u,j+v,b]
    """)


def reference(x, wq, wk, bias, wv):
    """Position by position, over the places that there are."""
    y = np.zeros((*x.shape[:2], wv.shape[1]))
    for i, j in np.ndindex(x.shape[:2]):
        near = [(k, l) for k, l in np.ndindex(x.shape[:2]) if abs(k - i) <= 1 and abs(l - j) <= 1]
        scores = [x[i, j] @ wq @ (x[k, l] @ wk) / np.sqrt(wq.shape[1]) + bias[k - i + 1, l - j + 1] for k, l in near]
        y[i, j] = softmax(np.array(scores)) @ np.array([x[k, l] @ wv for k, l in near])
    return y
