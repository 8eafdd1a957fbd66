"""Causal linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Causal linear attention",
    source="Katharopoulos et al., Transformers are RNNs, Eq. 9",
    year=2020,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=3,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def causal_linear(normalised: bool = False) -> Spec:
    """Return causal linear attention: `y_a = q_a Σ_{e<=a} k_e v_eᵀ`, of features q and k of queries and keys.

    Source: Katharopoulos et al., Transformers are RNNs, Eq. 9.

    Prefer it where a state of D*C numbers holds enough of the past. Features, such as elu + 1 or the random ones of
    Performers, are inputs.

    Args:
        normalised: whether each row is divided by `q_a Σ_{e<=a} k_e`, as published.
    """
    if normalised:
        return Spec("""
            v[N,C]; k[N,D]; q[N,D]
            z[a] = q[a,r]*k[e,r]*[e <= a]
            y[a,b] = q[a,r]*k[e,r]*v[e,b]*[e <= a] / z[a]
        """)
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        y[a,b] = q[a,r]*k[e,r]*v[e,b] * [e <= a]
    """)


def reference(v, k, q):
    """The recurrence of section 3.4, without the normaliser."""
    state, rows = np.zeros((k.shape[1], v.shape[1])), []
    for key, value, query in zip(k, v, q, strict=True):
        state = state + np.outer(key, value)
        rows.append(query @ state)
    return np.array(rows)
