"""Mamba-2's state space duality."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Mamba-2's state space duality",
    source="Dao and Gu, Transformers are SSMs, the SSD layer with a scalar decay for each head",
    year=2024,
    sizes={"N": 5, "H": 3, "P": 2, "D": 3},
    degree=None,
    reach={"N": "past"},
    equivariant=("P", "D"),
)


def mamba2() -> Spec:
    """Return the SSD layer: `S_t = exp(-dt_t rate) S_{t-1} + dt_t k_t x_tᵀ` and `y_t = q_t S_t`, for each head.

    Source: Dao and Gu, Transformers are SSMs, the SSD layer with a scalar decay for each head.

    Prefer it over `gla` where one gate for a head is enough; q and k (C and B of the paper) are shared by all heads.
    """
    return Spec("""
        x[N,H,P]; dt[N,H]; k[N,D]; q[N,D]
        c[a,h] = dt[e,h]*rate[h]*[e <= a]
        y[a,h,p] = q[a,r]*k[e,r]*exp(c[e,h] - c[a,h])*dt[e,h]*x[e,h,p] * [e <= a]
    """)


def reference(x, dt, k, q, rate):
    """The recurrence of each head."""
    state, rows = np.zeros((x.shape[1], k.shape[1], x.shape[2])), []
    for value, step, key, query in zip(x, dt, k, q, strict=True):
        kept = np.exp(-step * rate)
        state = kept[:, None, None] * state + step[:, None, None] * key[:, None] * value[:, None]
        rows.append(query @ state)
    return np.array(rows)
