"""Attention-free transformer without biases."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid, softmax

FACTS = Facts(
    title="Attention-free transformer without biases",
    source="Zhai et al., An Attention Free Transformer, 2021, section 3.1",
    year=2021,
    sizes={"N": 5, "C": 4},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
    relation="aft_full at bias = 0",
)


def aft_simple() -> Spec:
    """Return AFT-simple: one softmax over positions for each channel of the key, gated by each position.

    Source: Zhai et al., An Attention Free Transformer, 2021, section 3.1.

    Prefer it to `aft_full` where the order of positions does not matter: linear in N, for any N.
    """
    return Spec("""
        x[N,C]
        p[e,b] = softmax[e](x[e,c]*wk[c,b])
        y[a,b] = sigmoid(x[a,c]*wq[c,b]) * p[e,b]*x[e,d]*wv[d,b]
    """)


def reference(x, wk, wq, wv):
    """One context for all positions."""
    context = np.sum(softmax(x @ wk, 0) * (x @ wv), axis=0)
    return np.array([sigmoid(z @ wq) * context for z in x])
