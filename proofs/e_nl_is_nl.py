"""E-NL without softmax is NL with `wf = wq wkᵀ` and `wg = wv wo / N`, at every size and every rank R and V.

The published E-NL has two softmaxes, one over the channels of each query and one over the positions of each key. With
them it is not NL: neither NL with its softmax nor NL without.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

NL, E_NL = str(pa.catalog.nl()), str(pa.catalog.e_nl())
QUERY_KEY = "wf[d,f] = wq[d,r]*wk[f,r]"

THEOREM = Theorem(
    "E-NL without softmax is NL with wf = wq wkᵀ and wg = wv wo / N",
    "Poly-NL, section 4.2, on Shen et al.: the product of Eq. 2 from right to left. Conditions: no softmax, and the "
    "1/N, which the published form gets from its softmax over positions, goes into wg.",
    (
        Claim("e_nl_is_nl", "they are one function", NL, E_NL, (QUERY_KEY, "wg[h,b] = 1/N*wv[h,s]*wo[s,b]")),
        Claim(
            "e_nl_needs_1_over_n",
            "without the 1/N they differ",
            NL,
            E_NL,
            (QUERY_KEY, "wg[h,b] = wv[h,s]*wo[s,b]"),
            holds=False,
        ),
        Claim(
            "softmax_e_nl_is_not_nl",
            "with E-NL's softmaxes they differ",
            NL,
            str(pa.catalog.e_nl(softmax=True)),
            (QUERY_KEY, "wg[h,b] = wv[h,s]*wo[s,b]"),
            holds=False,
        ),
        Claim(
            "softmax_e_nl_is_not_softmax_nl",
            "with the softmaxes of both they differ",
            str(pa.catalog.nl(softmax=True)),
            str(pa.catalog.e_nl(softmax=True)),
            (QUERY_KEY, "wg[h,b] = wv[h,s]*wo[s,b]"),
            holds=False,
        ),
    ),
)


def test_e_nl_is_nl():
    THEOREM.settle()
