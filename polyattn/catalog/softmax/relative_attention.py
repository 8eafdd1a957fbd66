"""Attention with relative positions."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Attention with relative positions",
    source="Shaw et al., Self-Attention with Relative Position Representations, 2018, Eq. 3 and 4",
    year=2018,
    sizes={"N": 4, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
)


def relative_attention() -> Spec:
    """Return attention in which keys and values have a vector for each difference of positions, here without clipping.

    Source: Shaw et al., Self-Attention with Relative Position Representations, 2018, Eq. 3 and 4.

    Prefer it to `multi_head` where the order of positions matters; the tables have 2N - 1 rows, so N is fixed.
    """
    return Spec("""
        x[N,C]; where d : D; where b : D
        q[a,d] = x[a,c]*wq[c,d]
        k[e,d] = x[e,c]*wk[c,d]
        p[a,e] = softmax[e](1/sqrt(D) * q[a,d]*k[e,d] + 1/sqrt(D) * q[a,d]*rk[a-e,d])
        y[a,b] = p[a,e]*x[e,c]*wv[c,b] + p[a,e]*rv[a-e,b]
    """)


def reference(x, wq, wk, rk, wv, rv):
    """Position by position, each with its own keys and values."""
    n, y = len(x), []
    for a in range(n):
        keys = [x[e] @ wk + rk[a - e + n - 1] for e in range(n)]
        values = np.array([x[e] @ wv + rv[a - e + n - 1] for e in range(n)])
        y.append(softmax(np.array([x[a] @ wq @ k for k in keys]) / np.sqrt(wq.shape[1])) @ values)
    return np.array(y)
