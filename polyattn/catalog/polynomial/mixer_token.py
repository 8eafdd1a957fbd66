"""Token mixing."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import gelu

FACTS = Facts(
    title="Token mixing",
    source="Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021, Eq. 1",
    year=2021,
    sizes={"N": 4, "C": 3, "H": 5},
    degree=None,
    reach={"N": "all"},
    equivariant=("C",),
)


def mixer_token() -> Spec:
    """Return the first half of an MLP-Mixer block: a perceptron along the positions, one for all channels, and a
    residual.

    Source: Tolstikhin et al., MLP-Mixer: An all-MLP Architecture for Vision, 2021, Eq. 1.

    Prefer it to `multi_head` where N is fixed. The norm before it is left out.
    """
    return Spec("""
        x[N,C]; where h : H
        y[a,b] = x[a,b] + gelu(x[e,b]*w1[e,h])*w2[h,a]
    """)


def reference(x, w1, w2):
    """Channel by channel."""
    return np.array([z + gelu(z @ w1) @ w2 for z in x.T]).T
