"""Causal Poly-NL."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Causal Poly-NL",
    source="Babiloni et al., Poly-NL, Eq. 6, with the mean over the past",
    year=2021,
    sizes={"N": 5, "C": 4},
    degree=None,
    reach={"N": "past"},
    equivariant=(),
    symmetries=((("w1", "w2"),),),
)


def causal_poly_nl() -> Spec:
    """Return Poly-NL with the mean over a position and those before it: `y_a = (Φ_a(X W1 ⊙ X W2) ⊙ x_a) W3`.

    Source: Babiloni et al., Poly-NL, Eq. 6, with the mean over the past.

    Prefer it where `poly_nl` would see the future. Its state has C numbers and the count of the positions.
    """
    return Spec("""
        x[N,C]
        z[a] = [e <= a]
        y[a,b] = x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b] * [e <= a] / z[a]
    """)


def reference(x, w1, w2, w3):
    """Running means."""
    pairs = (x @ w1) * (x @ w2)
    means = np.array([pairs[: a + 1].mean(0) for a in range(len(x))])
    return (means * x) @ w3
