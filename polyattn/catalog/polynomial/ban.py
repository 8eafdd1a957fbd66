"""Bilinear attention network."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Bilinear attention network",
    source="Kim et al., Bilinear Attention Networks, 2018, section 3",
    year=2018,
    sizes={"N": 4, "M": 3, "C": 4, "D": 3, "K": 3},
    degree=None,
    equivariant=("N", "M"),
)


def ban() -> Spec:
    """Return the joint features of two sets: shares of all pairs of positions by a low-rank similarity, then bilinear
    sums.

    Source: Kim et al., Bilinear Attention Networks, 2018, section 3.

    Prefer it to `cross_attention` where one vector is wanted of both sets.
    """
    return Spec("""
        x[N,C]; z[M,D]; where k : K
        p[a,e] = softmax[a,e](g[k]*x[a,c]*u1[c,k]*z[e,d]*v1[d,k])
        y[k] = p[a,e]*x[a,c]*u2[c,k]*z[e,d]*v2[d,k]
    """)


def reference(x, z, g, u1, v1, u2, v2):
    """Pair by pair."""
    p = softmax(np.array([[np.sum(g * (a @ u1) * (e @ v1)) for e in z] for a in x]), (0, 1))
    return sum(p[i, j] * (a @ u2) * (e @ v2) for i, a in enumerate(x) for j, e in enumerate(z))
