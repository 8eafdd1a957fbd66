"""RMS norm."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="RMS norm",
    source="Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, Eq. 4",
    year=2019,
    sizes={"N": 3, "C": 5},
    degree=None,
    equivariant=("N",),
)


def rms_norm() -> Spec:
    """Return each position divided by the root of the mean of its channels' squares.

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, Eq. 4.

    Prefer it to `layer_norm` for its price.
    """
    return Spec("""
        x[N,C]
        y[a,b] = x[a,b]*g[b] / sqrt(1/C*x[a,c]*x[a,c] + 1e-6)
    """)


def reference(x, g):
    """Position by position."""
    return np.array([z / np.sqrt(np.mean(z * z) + 1e-6) * g for z in x])
