"""Block-causal linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Block-causal linear attention",
    source="Tian et al., Visual Autoregressive Modeling, its block-wise causal mask, with linear attention",
    year=2024,
    sizes={"N": 6, "M": 2, "D": 3, "C": 2},
    degree=3,
    reach={"N": "window"},
    equivariant=("C", "D"),
)


def block_causal() -> Spec:
    """Return linear attention of image tokens in blocks of M: a position reads its own block and those before.

    Source: Tian et al., Visual Autoregressive Modeling, its block-wise causal mask, with linear attention.

    Prefer it where a model writes all tokens of a block at once, such as a row of an image: a step takes a block.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]; where N = G*M
        y[(h m),b] = q[(h m),r]*k[(g n),r]*v[(g n),b] * [g <= h]
    """)


def reference(v, k, q, M):
    """One position after the other."""
    ends = [(a // M + 1) * M for a in range(len(q))]
    return np.array([q[a] @ (k[:end].T @ v[:end]) for a, end in enumerate(ends)])
