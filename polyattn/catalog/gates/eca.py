"""Efficient channel attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Efficient channel attention",
    source="Wang et al., ECA-Net, 2020, section 3",
    year=2019,
    sizes={"N": 4, "C": 5},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def eca() -> Spec:
    """Return the map with its channels scaled by a convolution of their means along the channels, here over three.

    Source: Wang et al., ECA-Net, 2020, section 3.

    Prefer it to `squeeze_excitation` where parameters are scarce: three of them.
    """
    return Spec("""
        x[N,C]; where u : -1..1
        m[c] = 1/N * x[a,c]
        y[a,b] = x[a,b] * sigmoid(w[u]*m[b+u])
    """)


def reference(x, w):
    """Channel by channel."""
    mean = np.pad(x.mean(0), 1)
    gate = [sigmoid(w @ mean[c : c + 3]) for c in range(x.shape[1])]
    return np.array([z * np.array(gate) for z in x])
