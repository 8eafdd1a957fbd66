"""Outer product mean."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Outer product mean",
    source="Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 10",
    year=2021,
    sizes={"S": 3, "N": 4, "C": 3, "D": 2, "E": 2, "O": 2},
    degree=2,
    reach={"N": "all"},
    equivariant=("S", "N"),
)


def outer_product_mean() -> Spec:
    """Return pairs from sequences: the mean over S sequences of the products of two positions' channels, through one
    tensor.

    Source: Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm
    10.

    Prefer it where a covariance of positions over sequences is the feature. The layer norm is left out.
    """
    return Spec("""
        x[S,N,C]; where d : D; where e : E; where o : O
        l[s,i,d] = x[s,i,c]*wl[c,d]
        r[s,j,e] = x[s,j,c]*wr[c,e]
        y[i,j,o] = 1/S * l[s,i,d]*r[s,j,e]*w[d,e,o] + b[o]
    """)


def reference(x, wl, wr, w, b):
    """Pair by pair."""
    y, count = np.zeros((x.shape[1], x.shape[1], len(b))), len(x)
    for i, j in np.ndindex(y.shape[:2]):
        y[i, j] = sum(np.einsum("d,e,deo->o", z[i] @ wl, z[j] @ wr, w) for z in x) / count + b
    return y
