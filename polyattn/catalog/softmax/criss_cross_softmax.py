"""Criss-cross attention with one softmax."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Criss-cross attention with one softmax",
    source="Huang et al., CCNet: Criss-Cross Attention for Semantic Segmentation, 2019, Eq. 1 and 2",
    year=2019,
    sizes={"H": 3, "W": 2, "C": 4, "R": 2},
    degree=None,
    reach={"H": "all", "W": "all"},
    equivariant=("H", "W"),
)


def criss_cross_softmax() -> Spec:
    """Return criss-cross attention with its softmax: one over the H + W - 1 places of a position's column and row.

    Source: Huang et al., CCNet: Criss-Cross Attention for Semantic Segmentation, 2019, Eq. 1 and 2.

    Prefer it to `criss_cross` where shares are to sum to one, as published; it is applied twice.
    """
    return Spec("""
        x[H,W,C]; where r : R
        q[i,j,r] = x[i,j,c]*wq[c,r]
        k[i,j,r] = x[i,j,c]*wk[c,r]
        z[i,j] = sum[o](exp(q[i,j,r]*k[o,j,r])*[o != i]) + sum[l](exp(q[i,j,r]*k[i,l,r]))
        g[i,j,b] = x[i,j,c]*wv[c,b]
        y[i,j,b] = exp(q[i,j,r]*k[o,j,r])*g[o,j,b]*[o != i] / z[i,j] + exp(q[i,j,r]*k[i,l,r])*g[i,l,b] / z[i,j]
    """)


def reference(x, wq, wk, wv):
    """Position by position, over its cross."""
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        cross = [(k, l) for k, l in np.ndindex(x.shape[:2]) if k == i or l == j]
        scores = np.array([x[i, j] @ wq @ (x[k, l] @ wk) for k, l in cross])
        y[i, j] = softmax(scores) @ np.array([x[k, l] @ wv for k, l in cross])
    return y
