"""Sliding-window attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Sliding-window attention",
    source="Beltagy et al., Longformer, section 3.1, over the past",
    year=2020,
    sizes={"N": 6, "D": 3, "C": 2, "W": 3},
    degree=None,
    reach={"N": "window"},
    equivariant=("C", "D"),
)


def sliding_window() -> Spec:
    """Return causal softmax attention over the last W positions.

    Source: Beltagy et al., Longformer, section 3.1, over the past.

    Prefer it over `causal_softmax` where near positions are enough: time and memory of a step do not grow.
    """
    return Spec("""
        v[N,C]; k[N,D]; q[N,D]
        p[a,e] = softmax[e](1/sqrt(D)*q[a,r]*k[e,r] where e <= a, a-e < W)
        y[a,b] = p[a,e]*v[e,b]
    """)


def reference(v, k, q, W):
    """One query after the other."""
    rows = []
    for a in range(len(q)):
        first = max(0, a + 1 - W)
        rows.append(attend(q[a : a + 1], k[first : a + 1], v[first : a + 1])[0])
    return np.array(rows)
