"""Asymmetric second-order linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Asymmetric second-order linear attention",
    source="Zhang et al., Higher-order Linear Attention, the asymmetric form (AHLA)",
    year=2025,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=5,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def ahla() -> Spec:
    """Return asymmetric second-order linear attention (AHLA): `y_t = Σ_{i<=j<=t} (q_t·k_j)(q_j·k_i) v_i`.

    Source: Zhang et al., Higher-order Linear Attention, the asymmetric form (AHLA).

    Prefer it over `hla` where the outer weights should be those of `causal_linear`: it is causal linear attention of
    its own output. Its two states have D*C numbers each.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        y[a,b] = q[a,r]*k[j,r]*q[j,s]*k[i,s]*v[i,b] * [i <= j]*[j <= a]
    """)


def reference(v, k, q):
    """The masked matrix of scores, applied twice."""
    scores = np.tril(q @ k.T)
    return scores @ (scores @ v)
