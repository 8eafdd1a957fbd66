"""Gated linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Gated linear attention",
    source="Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, recurrent form",
    year=2023,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=None,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def gla() -> Spec:
    """Return gated linear attention: `S_t = Diag(exp g_t) S_{t-1} + k_t v_tᵀ` and `y_t = q_t S_t`.

    Source: Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, recurrent form.

    Prefer it over `retnet` where forgetting depends on the input, with a gate for each channel of the keys.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]; g[N,D]
        c[a,r] = g[e,r]*[e <= a]
        y[a,b] = q[a,r]*k[e,r]*exp(c[a,r] - c[e,r])*v[e,b] * [e <= a]
    """)


def reference(v, k, q, g):
    """The recurrence."""
    state, rows = np.zeros((k.shape[1], v.shape[1])), []
    for key, value, query, gate in zip(k, v, q, g, strict=True):
        state = np.exp(gate)[:, None] * state + np.outer(key, value)
        rows.append(query @ state)
    return np.array(rows)
