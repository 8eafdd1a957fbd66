"""Bilinear feed-forward layer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Bilinear feed-forward layer",
    source="Shazeer, GLU Variants Improve Transformer, 2020, Eq. 6",
    year=2020,
    sizes={"N": 3, "C": 4, "H": 5},
    degree=2,
    equivariant=("N",),
    symmetries=((("w1", "w2"),),),
)


def bilinear_mlp() -> Spec:
    """Return the gated layer without its gate's function: `(X W1 ⊙ X W2) W3`.

    Source: Shazeer, GLU Variants Improve Transformer, 2020, Eq. 6.

    Prefer it to `swiglu` where the layer is to be a polynomial, as for reading its weights.
    """
    return Spec("""
        x[N,C]; where h : H
        y[a,b] = x[a,c]*w1[c,h] * x[a,d]*w2[d,h] * w3[h,b]
    """)


def reference(x, w1, w2, w3):
    """Position by position."""
    return np.array([((z @ w1) * (z @ w2)) @ w3 for z in x])
