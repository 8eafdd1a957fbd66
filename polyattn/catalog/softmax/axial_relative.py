"""Position-sensitive axial attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Position-sensitive axial attention",
    source="Wang et al., Axial-DeepLab, 2020, Eq. 4",
    year=2020,
    sizes={"H": 3, "W": 2, "C": 3, "D": 2},
    degree=None,
    reach={"H": "all"},
    equivariant=("W",),
)


def axial_relative() -> Spec:
    """Return attention along the columns of a map with relative positions for query, key and value.

    Source: Wang et al., Axial-DeepLab, 2020, Eq. 4.

    Prefer it to `axial` where the place along the axis matters; the tables have 2H - 1 rows. One head; the paper has
    eight.
    """
    return Spec("""
        x[H,W,C]; where d : D
        q[i,j,d] = x[i,j,c]*wq[c,d]
        k[i,j,d] = x[i,j,c]*wk[c,d]
        p[i,j,o] = softmax[o](q[i,j,d]*k[o,j,d] + q[i,j,d]*rq[i-o,d] + k[o,j,d]*rk[i-o,d])
        y[i,j,b] = p[i,j,o]*x[o,j,c]*wv[c,b] + p[i,j,o]*rv[i-o,b]
    """)


def reference(x, wq, wk, rq, rk, wv, rv):
    """Column by column."""
    n, y = len(x), np.zeros((*x.shape[:2], wv.shape[1]))
    for i, j in np.ndindex(x.shape[:2]):
        q, column = x[i, j] @ wq, range(n)
        keys = [x[o, j] @ wk for o in column]
        scores = [q @ keys[o] + q @ rq[i - o + n - 1] + keys[o] @ rk[i - o + n - 1] for o in column]
        y[i, j] = softmax(np.array(scores)) @ np.array([x[o, j] @ wv + rv[i - o + n - 1] for o in column])
    return y
