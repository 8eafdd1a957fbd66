"""Poly-NL."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Poly-NL",
    source="Babiloni et al., Poly-NL, Eq. 6 and 7",
    year=2021,
    sizes={"N": 5, "C": 4},
    reach={"N": "all"},
    equivariant=("N",),
    symmetries=((("w1", "w2"),),),
)


def poly_nl(reduced: bool = False) -> Spec:
    """Return Poly-NL: `Y = (Φ(X W1 ⊙ X W2) ⊙ X) W3`, where Φ is the mean over positions.

    Source: Babiloni et al., Poly-NL, Eq. 6 and 7.

    Prefer it where N is large: linear in N in its own order, with no matrix product over positions. Where N > C its
    Gram form, `s_d = 1/N Σ_f (XᵀX W1)[f,d] W2[f,d]` and `Y = X (diag(s) W3)`, is the cheaper one. It weights the same
    triplets `x[a,d] x[e,f] x[e,h]` as `nl`, with other weights: neither is a special case of the other.

    Args:
        reduced: with R inner channels, to which a fourth matrix takes the X that is not averaged:
            `Y = (Φ(X W1 ⊙ X W2) ⊙ X W0) W3`, which is Eq. 6 at W0 = I.
    """
    if reduced:
        return Spec("""
            x[N,C]; where r : R
            y[a,b] = 1/N * x[e,h]*w1[h,r] * x[e,f]*w2[f,r] * x[a,d]*w0[d,r]*w3[r,b]
        """)
    return Spec("""
        x[N,C]
        y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b]
    """)


def reference(x, w1, w2, w3):
    """`(Φ(X W1 ⊙ X W2) ⊙ X) W3`, as Eq. 6 has it."""
    return (np.mean((x @ w1) * (x @ w2), axis=0) * x) @ w3
