"""Poly-NL's Hadamard form is its Gram form: no position is needed once X's Gram matrix is there.

Hadamard form (Eq. 6): `Y = (Φ(X W1 ⊙ X W2) ⊙ X) W3`, Φ the mean over positions. Gram form: with `G = XᵀX`,
`s_d = 1/N Σ_f (G W1)[f,d] W2[f,d]` and `Y = X (diag(s) W3)`.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

HADAMARD = """x[N,C]
first[e,d] = x[e,h]*w1[h,d]
second[e,d] = x[e,f]*w2[f,d]
pooled[d] = mean[e](first[e,d]*second[e,d])
y[a,b] = pooled[d]*x[a,d]*w3[d,b]"""

GRAM = """x[N,C]
gram[f,h] = x[e,f]*x[e,h]
weighted[f,d] = gram[f,h]*w1[h,d]
s[d] = 1/N * weighted[f,d]*w2[f,d]
mixed[d,b] = s[d]*w3[d,b]
y[a,b] = x[a,d]*mixed[d,b]"""

THEOREM = Theorem(
    "Poly-NL's Hadamard form is its Gram form",
    "Poly-NL, Eq. 6 and 7. Which is cheaper depends on whether N or C is the larger; the function is one.",
    (
        Claim("poly_nl_gram_form", "the Hadamard form is the Gram form", HADAMARD, GRAM),
        Claim("poly_nl_hadamard_form", "and both are Eq. 7", HADAMARD, str(pa.catalog.poly_nl())),
        Claim(
            "poly_nl_pooling_first",
            "the means of the two factors, multiplied, are something else",
            HADAMARD,
            HADAMARD.replace(
                "pooled[d] = mean[e](first[e,d]*second[e,d])",
                "one[d] = mean[e](first[e,d])\ntwo[d] = mean[e](second[e,d])\npooled[d] = one[d]*two[d]",
            ),
            holds=False,
        ),
    ),
)


def test_poly_nl_gram_form():
    THEOREM.settle()
