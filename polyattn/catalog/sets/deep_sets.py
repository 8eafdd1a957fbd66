"""Permutation-equivariant layer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Permutation-equivariant layer",
    source="Zaheer et al., Deep Sets, 2017, Eq. 4",
    year=2017,
    sizes={"N": 4, "C": 3, "D": 2},
    degree=1,
    reach={"N": "all"},
    equivariant=("N",),
)


def deep_sets() -> Spec:
    """Return each element through one matrix plus the mean of all through another.

    Source: Zaheer et al., Deep Sets, 2017, Eq. 4.

    Prefer it where elements are to know no more than their mean.
    """
    return Spec("""
        x[N,C]; where d : D
        y[a,d] = x[a,c]*w1[c,d] + 1/N*x[e,c]*w2[c,d]
    """)


def reference(x, w1, w2):
    """Element by element."""
    return np.array([z @ w1 + x.mean(0) @ w2 for z in x])
