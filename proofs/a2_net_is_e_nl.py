"""A²-Net's double attention and E-NL are one layer under other names, without softmax and with it.

A²-Net gathers V features by R attention maps over positions, then hands them out to each position; E-NL multiplies
keys by values, then queries by that. The maps are the keys, the handing out is by the queries.
"""

import polyattn as pa
from proofs.theorem import Claim, Theorem

NAMES = ("wrho[d,r] = wq[d,r]", "wtheta[f,r] = wk[f,r]", "wphi[h,s] = wv[h,s]")

THEOREM = Theorem(
    "A²-Net's core is E-NL's core, with softmax and without",
    "Chen et al., A²-Nets, Eq. 6; Shen et al., Efficient Attention. The softmaxes correspond: over positions for what "
    "is gathered (the keys), over maps for what is handed out (the queries).",
    (
        Claim("a2_net_is_e_nl", "the polynomials are one", str(pa.catalog.a2_net()), str(pa.catalog.e_nl()), NAMES),
        Claim(
            "softmax_a2_net_is_softmax_e_nl",
            "with both softmaxes they are one",
            str(pa.catalog.a2_net(softmax=True)),
            str(pa.catalog.e_nl(softmax=True)),
            NAMES,
        ),
        Claim(
            "a2_net_with_softmaxes_exchanged",
            "queries and keys exchanged, the softmaxes no longer correspond",
            str(pa.catalog.a2_net(softmax=True)),
            str(pa.catalog.e_nl(softmax=True)),
            ("wrho[d,r] = wk[d,r]", "wtheta[f,r] = wq[f,r]", "wphi[h,s] = wv[h,s]"),
            holds=False,
        ),
    ),
)


def test_a2_net_is_e_nl():
    THEOREM.settle()
