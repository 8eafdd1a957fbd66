"""Triangle multiplication, outgoing edges."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Triangle multiplication, outgoing edges",
    source="Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 11",
    year=2021,
    sizes={"N": 3, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def triangle_outgoing() -> Spec:
    """Return an update of pairs: the edge i to j meets all third nodes k by the edges i to k and j to k.

    Source: Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm
    11.

    Prefer it to `triangle_attention` for its price. The layer norms are left out.
    """
    return Spec("""
        x[N,N,C]; where d : D
        l[i,k,d] = sigmoid(x[i,k,c]*wl[c,d]) * x[i,k,f]*ul[f,d]
        r[j,k,d] = sigmoid(x[j,k,c]*wr[c,d]) * x[j,k,f]*ur[f,d]
        y[i,j,b] = sigmoid(x[i,j,c]*wg[c,b]) * l[i,k,d]*r[j,k,d]*wo[d,b]
    """)


def reference(x, wl, ul, wr, ur, wg, wo):
    """Pair by pair, over the third nodes."""
    left, right, y = sigmoid(x @ wl) * (x @ ul), sigmoid(x @ wr) * (x @ ur), np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        y[i, j] = sigmoid(x[i, j] @ wg) * (sum(left[i, k] * right[j, k] for k in range(len(x))) @ wo)
    return y
