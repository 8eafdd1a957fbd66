"""Channel attention of CBAM."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu, sigmoid

FACTS = Facts(
    title="Channel attention of CBAM",
    source="Woo et al., CBAM: Convolutional Block Attention Module, 2018, Eq. 2",
    year=2018,
    sizes={"N": 5, "C": 4, "R": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def cbam_channel() -> Spec:
    """Return the map with its channels scaled by a perceptron of their means plus the same of their maxima.

    Source: Woo et al., CBAM: Convolutional Block Attention Module, 2018, Eq. 2.

    Prefer it to `squeeze_excitation` where single strong positions are to count.
    """
    return Spec("""
        x[N,C]; where r : R
        m[c] = 1/N * x[a,c]
        t[c] = max[a](x[a,c])
        y[a,b] = x[a,b] * sigmoid(relu(m[c]*w1[c,r])*w2[r,b] + relu(t[c]*w1[c,r])*w2[r,b])
    """)


def reference(x, w1, w2):
    """Two descriptors through one perceptron."""
    gate = sigmoid(sum(relu(d @ w1) @ w2 for d in (x.mean(0), x.max(0))))
    return np.array([z * gate for z in x])
