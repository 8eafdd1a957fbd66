"""Covariance pooling."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Covariance pooling",
    source="Carreira et al., Semantic Segmentation with Second-Order Pooling, 2012, section 2",
    year=2012,
    sizes={"N": 5, "C": 3},
    degree=2,
    equivariant=("N", "C"),
)


def covariance_pooling() -> Spec:
    """Return the covariance of the channels over the positions, without parameters.

    Source: Carreira et al., Semantic Segmentation with Second-Order Pooling, 2012, section 2.

    Prefer it where the second moments of a map are the features; the published logarithm of matrices is left out.
    """
    return Spec("""
        x[N,C]
        m[c] = 1/N * x[a,c]
        y[c,d] = 1/N * x[a,c]*x[a,d] - m[c]*m[d]
    """)


def reference(x):
    """Outer products of deviations."""
    mean = x.mean(0)
    return sum(np.outer(z - mean, z - mean) for z in x) / len(x)
