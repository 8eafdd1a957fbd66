"""Bilinear pooling."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Bilinear pooling",
    source="Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, 2015, section 3",
    year=2015,
    sizes={"N": 4, "C": 3, "D": 2, "O": 2},
    degree=2,
    equivariant=("N",),
)


def bilinear_pooling() -> Spec:
    """Return the mean over positions of the products of two maps' channels, through one matrix for each output.

    Source: Lin et al., Bilinear CNN Models for Fine-grained Visual Recognition, 2015, section 3.

    Prefer it where all pairs of channels matter and C D O numbers are affordable.
    """
    return Spec("""
        x[N,C]; z[N,D]; where o : O
        y[o] = 1/N * x[a,c]*w[c,d,o]*z[a,d]
    """)


def reference(x, z, w):
    """Position by position."""
    return sum(np.einsum("c,cdo,d->o", a, w, b) for a, b in zip(x, z, strict=True)) / len(x)
