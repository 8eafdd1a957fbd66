"""SimAM."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="SimAM",
    source="Yang et al., SimAM: A Simple, Parameter-Free Attention Module, 2021, section 3",
    year=2021,
    sizes={"N": 5, "C": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N", "C"),
)


def simam() -> Spec:
    """Return the map scaled by how far each entry is from its channel's mean, without parameters; N - 1 in the variance
    as N here.

    Source: Yang et al., SimAM: A Simple, Parameter-Free Attention Module, 2021, section 3.

    Prefer it where no parameters may be added.
    """
    return Spec("""
        x[N,C]
        m[c] = 1/N * x[a,c]
        d[a,c] = x[a,c] - m[c]
        v[c] = 1/N * d[a,c]*d[a,c]
        y[a,b] = x[a,b] * sigmoid(d[a,b]*d[a,b] / (4*v[b] + 0.0004) + 0.5)
    """)


def reference(x):
    """Channel by channel."""
    columns = []
    for z in x.T:
        squares = (z - z.mean()) ** 2
        columns.append(z * sigmoid(squares / (4 * (squares.mean() + 1e-4)) + 0.5))
    return np.array(columns).T
