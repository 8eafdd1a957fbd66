"""RetNet's retention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="RetNet's retention",
    source="Sun et al., Retentive Network, Eq. 5 and 6",
    year=2023,
    sizes={"N": 5, "D": 3, "C": 2, "H": 3},
    degree=None,
    reach={"N": "past"},
    equivariant=("D", "C"),
)


def retnet() -> Spec:
    """Return retention: linear attention with a constant decay γ_h = exp(s_h) of each head.

    Source: Sun et al., Retentive Network, Eq. 5 and 6.

    Prefer it over `causal_linear` where near positions should count more. Rotations of q and k are in the inputs.
    """
    return Spec("""
        k[N,H,D]; v[N,H,C]; q[N,H,D]
        c[a,h] = s[h]*[e <= a]
        y[a,h,b] = q[a,h,r]*k[e,h,r]*exp(c[a,h] - c[e,h])*v[e,h,b] * [e <= a]
    """)


def reference(k, v, q, s):
    """The parallel form, with the matrix of decays."""
    place = np.arange(len(q))
    apart = place[:, None] - place
    rows = []
    for h, rate in enumerate(s):
        decays = np.where(apart >= 0, np.exp(rate * np.maximum(apart, 0)), 0)
        rows.append((q[:, h] @ k[:, h].T * decays) @ v[:, h])
    return np.stack(rows, 1)
