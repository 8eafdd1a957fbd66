"""Low-rank bilinear model."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Low-rank bilinear model",
    source="Kim et al., Hadamard Product for Low-rank Bilinear Pooling, 2017, section 3",
    year=2017,
    sizes={"C": 4, "D": 3, "R": 3, "O": 2},
    degree=None,
)


def mlb() -> Spec:
    """Return the low-rank fusion of two vectors: tanh of their projections, multiplied, then one matrix.

    Source: Kim et al., Hadamard Product for Low-rank Bilinear Pooling, 2017, section 3.

    Prefer it to `mutan` where one rank is enough.
    """
    return Spec("""
        x[C]; z[D]; where r : R; where o : O
        y[o] = tanh(x[c]*u[c,r]) * tanh(z[d]*v[d,r]) * w[r,o]
    """)


def reference(x, z, u, v, w):
    """Rank by rank."""
    return sum(np.tanh(x @ u[:, r]) * np.tanh(z @ v[:, r]) * w[r] for r in range(len(w)))
