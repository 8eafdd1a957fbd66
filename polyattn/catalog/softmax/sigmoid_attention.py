"""Sigmoid attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import sigmoid

FACTS = Facts(
    title="Sigmoid attention",
    source="Ramapuram et al., Theory, Analysis, and Best Practices for Sigmoid Self-Attention, 2024, section 2",
    year=2024,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def sigmoid_attention() -> Spec:
    """Return sigmoid attention: each similarity gets its own gate instead of a share; `b` is -log N at the start.

    Source: Ramapuram et al., Theory, Analysis, and Best Practices for Sigmoid Self-Attention, 2024, section 2.

    Prefer it to `multi_head` where rows need no normaliser: nothing is reduced along the row.
    """
    return Spec("""
        x[N,C]; where d : D
        p[a,e] = sigmoid(1/sqrt(D) * x[a,c]*wq[c,d]*x[e,f]*wk[f,d] + b)
        y[a,o] = p[a,e]*x[e,c]*wv[c,o]
    """)


def reference(x, wq, wk, b, wv):
    """Position by position."""
    gates = sigmoid((x @ wq) @ (x @ wk).T / np.sqrt(wq.shape[1]) + b)
    return np.array([sum(g * (z @ wv) for g, z in zip(row, x, strict=True)) for row in gates])
