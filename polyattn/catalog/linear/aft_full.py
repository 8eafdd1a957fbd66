"""Attention-free transformer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Attention-free transformer",
    source="Zhai et al., An Attention Free Transformer, 2021, Eq. 2",
    year=2021,
    sizes={"N": 4, "C": 3},
    degree=None,
    reach={"N": "all"},
)


def aft_full() -> Spec:
    """Return AFT-full: weights `exp(k + bias)` of each channel for each pair of positions, a sigmoid gate in the place
    of the query.

    Source: Zhai et al., An Attention Free Transformer, 2021, Eq. 2.

    Prefer it where queries are to gate and not to compare; the table of biases has N² entries.
    """
    return Spec("""
        x[N,C]
        k[e,b] = x[e,c]*wk[c,b]
        z[a,b] = sum[e](exp(k[e,b] + bias[a,e]))
        y[a,b] = sigmoid(x[a,c]*wq[c,b]) * exp(k[e,b] + bias[a,e])*x[e,d]*wv[d,b] / z[a,b]
    """)


def reference(x, wk, bias, wq, wv):
    """Position by position, channel by channel."""
    weights = np.exp((x @ wk)[None] + bias[:, :, None])
    y = [sigmoid(z @ wq) * (w * (x @ wv)).sum(0) / w.sum(0) for z, w in zip(x, weights, strict=True)]
    return np.array(y)
