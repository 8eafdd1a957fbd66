"""Squeeze and excitation."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu, sigmoid

FACTS = Facts(
    title="Squeeze and excitation",
    source="Hu et al., Squeeze-and-Excitation Networks, 2018, Eq. 2 to 4",
    year=2017,
    sizes={"N": 5, "C": 4, "R": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def squeeze_excitation() -> Spec:
    """Return the map with its channels scaled by a function of their means, through R numbers.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2018, Eq. 2 to 4.

    Prefer it where channels are to be chosen by what the whole map holds: two small products.
    """
    return Spec("""
        x[N,C]; where r : R
        m[c] = 1/N * x[a,c]
        s[r] = relu(m[c]*w1[c,r] + b1[r])
        y[a,b] = x[a,b] * sigmoid(s[r]*w2[r,b] + b2[b])
    """)


def reference(x, w1, b1, w2, b2):
    """The gate once, then each position."""
    gate = sigmoid(relu(x.mean(0) @ w1 + b1) @ w2 + b2)
    return np.array([z * gate for z in x])
