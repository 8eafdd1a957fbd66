"""Causal softmax attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Causal softmax attention",
    source="Vaswani et al., Attention Is All You Need, Eq. 1, with its mask",
    year=2017,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=None,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def causal_softmax() -> Spec:
    """Return causal softmax attention: `y_a = Σ_{e<=a} softmax_e(q_a·k_e/√D) v_e`.

    Source: Vaswani et al., Attention Is All You Need, Eq. 1, with its mask.

    Prefer it where the past has to be read exactly. Without a recurrence: `state="cache"` keeps
    D + C numbers of each position.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        p[a,e] = softmax[e](1/sqrt(D)*q[a,r]*k[e,r] where e <= a)
        y[a,b] = p[a,e]*v[e,b]
    """)


def reference(v, k, q):
    """One query after the other."""
    return np.array([attend(q[a : a + 1], k[: a + 1], v[: a + 1])[0] for a in range(len(q))])
