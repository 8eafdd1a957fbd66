"""Based, the Taylor expansion of softmax to order 2."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Based, the Taylor expansion of softmax to order 2",
    source="Arora et al., Simple linear attention language models balance the recall-throughput tradeoff",
    year=2024,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=None,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def based() -> Spec:
    """Return Based's linear attention: weights `1 + s + s²/2` of scores s = q·k/√D, normalised.

    Source: Arora et al., Simple linear attention language models balance the recall-throughput tradeoff.

    Prefer it over `causal_linear` where a state of (1 + D + D²)*(C + 1) numbers pays for sharper weights; D is
    small, such as 16.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        w[a,e] = [e <= a] + 1/sqrt(D)*q[a,r]*k[e,r]*[e <= a] + 1/2/D*q[a,r]*k[e,r]*q[a,s]*k[e,s]*[e <= a]
        z[a] = w[a,e]
        y[a,b] = w[a,e]*v[e,b] / z[a]
    """)


def reference(v, k, q):
    """Row by row."""
    rows = []
    for a, query in enumerate(q):
        s = k[: a + 1] @ query / np.sqrt(k.shape[1])
        weights = 1 + s + s**2 / 2
        rows.append(weights @ v[: a + 1] / weights.sum())
    return np.array(rows)
