"""Second-order linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Second-order linear attention",
    source="Zhang et al., Higher-order Linear Attention, Theorem 3.1",
    year=2025,
    sizes={"N": 5, "D": 3, "C": 2},
    degree=5,
    reach={"N": "past"},
    equivariant=("C", "D"),
)


def hla() -> Spec:
    """Return second-order linear attention (HLA): `y_t = Σ_{i<=j<=t} (q_t·k_i)(k_i·q_j) v_j`.

    Source: Zhang et al., Higher-order Linear Attention, Theorem 3.1.

    Prefer it over `causal_linear` where weights have to depend on pairs of earlier positions. Its two states
    are D*D + D*C numbers; the published derivation keeps a third.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        y[a,b] = q[a,r]*k[i,r]*k[i,s]*q[j,s]*v[j,b] * [i <= j]*[j <= a]
    """)


def reference(v, k, q):
    """All pairs of positions."""
    rows = []
    for t in range(len(q)):
        pairs = ((i, j) for j in range(t + 1) for i in range(j + 1))
        rows.append(sum((q[t] @ k[i]) * (k[i] @ q[j]) * v[j] for i, j in pairs))
    return np.array(rows)
