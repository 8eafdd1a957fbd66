"""Triangle multiplication, incoming edges."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Triangle multiplication, incoming edges",
    source="Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 12",
    year=2021,
    sizes={"N": 3, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
    relation="triangle_outgoing of the transposed pairs, but for the gate, which stays with the pair",
)


def triangle_incoming() -> Spec:
    """Return an update of pairs: the edge i to j meets all third nodes k by the edges k to i and k to j.

    Source: Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm
    12.

    Prefer it after `triangle_outgoing`, as published. The layer norms are left out.
    """
    return Spec("""
        x[N,N,C]; where d : D
        l[k,i,d] = sigmoid(x[k,i,c]*wl[c,d]) * x[k,i,f]*ul[f,d]
        r[k,j,d] = sigmoid(x[k,j,c]*wr[c,d]) * x[k,j,f]*ur[f,d]
        y[i,j,b] = sigmoid(x[i,j,c]*wg[c,b]) * l[k,i,d]*r[k,j,d]*wo[d,b]
    """)


def reference(x, wl, ul, wr, ur, wg, wo):
    """Pair by pair, over the third nodes."""
    left, right, y = sigmoid(x @ wl) * (x @ ul), sigmoid(x @ wr) * (x @ ur), np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = sigmoid(x[i, j] @ wg) * (sum(left[k, i] * right[k, j] for k in range(len(x))) @ wo)
    return y
