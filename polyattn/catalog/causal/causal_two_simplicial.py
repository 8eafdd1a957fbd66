"""Causal 2-simplicial attention without softmax."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Causal 2-simplicial attention without softmax",
    source="Roy et al., Fast and Simplex: 2-Simplicial Attention in Triton, trilinear attention, without softmax",
    year=2025,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=5,
    reach={"N": "past"},
    equivariant=("D", "C"),
)


def causal_two_simplicial() -> Spec:
    """Return 2-simplicial attention without softmax: `y_a = Σ_{e,f<=a} Σ_r q_ar k_er l_fr (v_e ⊙ w_f)`.

    Source: Roy et al., Fast and Simplex: 2-Simplicial Attention in Triton, trilinear attention, without softmax.

    Prefer it where a position has to weigh pairs of earlier ones; without softmax it is linear in N, from two states
    of D*C numbers.
    """
    return Spec("""
        k[N,D]; l[N,D]; v[N,C]; u[N,C]; q[N,D]
        y[a,b] = q[a,r]*k[e,r]*v[e,b]*l[f,r]*u[f,b] * [e <= a]*[f <= a]
    """)


def reference(k, l, v, u, q):
    """All pairs of positions."""
    rows = []
    for a in range(len(q)):
        pairs = ((e, f) for e in range(a + 1) for f in range(a + 1))
        rows.append(sum(np.sum(q[a] * k[e] * l[f]) * v[e] * u[f] for e, f in pairs))
    return np.array(rows)
