"""SwiGLU feed-forward layer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import silu

FACTS = Facts(
    title="SwiGLU feed-forward layer",
    source="Shazeer, GLU Variants Improve Transformer, 2020, Eq. 6",
    year=2020,
    sizes={"N": 3, "C": 4, "H": 5},
    degree=None,
    equivariant=("N",),
)


def swiglu() -> Spec:
    """Return `(silu(X W1) ⊙ X W2) W3` at each position.

    Source: Shazeer, GLU Variants Improve Transformer, 2020, Eq. 6.

    Prefer it as the feed-forward layer of a transformer; `bilinear_mlp` is it without the function.
    """
    return Spec("""
        x[N,C]; where h : H
        y[a,b] = silu(x[a,c]*w1[c,h]) * x[a,d]*w2[d,h] * w3[h,b]
    """)


def reference(x, w1, w2, w3):
    """Position by position."""
    return np.array([(silu(z @ w1) * (z @ w2)) @ w3 for z in x])
