"""Layer norm."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Layer norm",
    source="Ba et al., Layer Normalization, 2016, section 3",
    year=2016,
    sizes={"N": 3, "C": 5},
    degree=None,
    equivariant=("N",),
)


def layer_norm() -> Spec:
    """Return each position without its mean over the channels, divided by their standard deviation.

    Source: Ba et al., Layer Normalization, 2016, section 3.

    Prefer it to `rms_norm` where the mean of the channels says nothing.
    """
    return Spec("""
        x[N,C]
        d[a,b] = x[a,b] - mean[c](x[a,c])
        y[a,b] = d[a,b]*g[b] / sqrt(1/C*d[a,c]*d[a,c] + 1e-5) + s[b]
    """)


def reference(x, g, s):
    """Position by position."""
    rows = []
    for z in x:
        rows.append((z - z.mean()) / np.sqrt(z.var() + 1e-5) * g + s)
    return np.array(rows)
