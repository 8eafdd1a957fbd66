"""Gated linear unit."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Gated linear unit",
    source="Dauphin et al., Language Modeling with Gated Convolutional Networks, 2017, Eq. 1",
    year=2016,
    sizes={"N": 3, "C": 4, "H": 3},
    degree=None,
    equivariant=("N",),
)


def glu() -> Spec:
    """Return `(X W + b) ⊙ sigmoid(X V + c)` at each position, here without the convolution.

    Source: Dauphin et al., Language Modeling with Gated Convolutional Networks, 2017, Eq. 1.

    Prefer it to `swiglu` where gates are to lie between 0 and 1.
    """
    return Spec("""
        x[N,C]; where h : H
        u[a,h] = x[a,c]*w[c,h] + b[h]
        y[a,h] = u[a,h] * sigmoid(x[a,c]*v[c,h] + g[h])
    """)


def reference(x, w, b, v, g):
    """Position by position."""
    return np.array([(z @ w + b) * sigmoid(z @ v + g) for z in x])
