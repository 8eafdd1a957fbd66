"""Causal TESA."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Causal TESA",
    source="Babiloni et al., TESA, the similarity of positions, over the past",
    year=2020,
    sizes={"N": 5, "C": 4, "R": 2},
    degree=3,
    reach={"N": "past"},
    equivariant=(),
)


def causal_tesa() -> Spec:
    """Return TESA's attention of positions by a similarity of R channels, over a position and those before it.

    Source: Babiloni et al., TESA, the similarity of positions, over the past.

    Prefer it where `tesa` would see the future. Its state is the R x C product of keys and values, or one of inputs.
    """
    return Spec("""
        x[N,C]; where r : R
        y[a,b] = x[a,d]*wq[d,r] * x[e,f]*wk[f,r] * x[e,h]*wv[h,b] * [e <= a]
    """)


def reference(x, wq, wk, wv):
    """The masked matrix of similarities."""
    return np.tril((x @ wq) @ (x @ wk).T) @ (x @ wv)
