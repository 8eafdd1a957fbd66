"""External attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="External attention",
    source="Guo et al., Beyond Self-attention: External Attention using Two Linear Layers, 2021, section 3",
    year=2021,
    sizes={"N": 5, "C": 4, "M": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def external() -> Spec:
    """Return external attention: M memory cells as keys and values, softmax over positions, then shares of each
    position.

    Source: Guo et al., Beyond Self-attention: External Attention using Two Linear Layers, 2021, section 3.

    Prefer it where the keys are to be the same for all samples: linear in N.
    """
    return Spec("""
        x[N,C]; where m : M
        s[a,m] = softmax[a](x[a,c]*mk[m,c])
        p[a,m] = s[a,m] / sum[n](s[a,n])
        y[a,b] = p[a,m]*mv[m,b]
    """)


def reference(x, mk, mv):
    """Normalised twice."""
    p = softmax(x @ mk.T, 0)
    return np.array([row / row.sum() @ mv for row in p])
