"""Dense synthesizer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu, softmax

FACTS = Facts(
    title="Dense synthesizer",
    source="Tay et al., Synthesizer: Rethinking Self-Attention for Transformer Models, 2021, section 3.1",
    year=2020,
    sizes={"N": 4, "C": 3, "R": 2},
    degree=None,
    reach={"N": "all"},
)


def dense_synthesizer() -> Spec:
    """Return the dense synthesizer: each position predicts its N weights by itself, without keys.

    Source: Tay et al., Synthesizer: Rethinking Self-Attention for Transformer Models, 2021, section 3.1.

    Prefer it as a control for `multi_head`: no pair of positions is compared. Its weights have the size N.
    """
    return Spec("""
        x[N,C]; where r : R
        h[a,r] = relu(x[a,c]*w1[c,r])
        p[a,e] = softmax[e](h[a,r]*w2[r,e])
        y[a,b] = p[a,e]*x[e,c]*wv[c,b]
    """)


def reference(x, w1, w2, wv):
    """Position by position."""
    return np.array([softmax(relu(z @ w1) @ w2) @ (x @ wv) for z in x])
