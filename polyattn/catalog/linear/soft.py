"""Softmax-free attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Softmax-free attention",
    source="Lu et al., SOFT: Softmax-free Transformer with Linear Complexity, 2021, section 3",
    year=2021,
    sizes={"N": 4, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def soft() -> Spec:
    """Return attention by a Gaussian kernel of the distance of two projections, without a normaliser.

    Source: Lu et al., SOFT: Softmax-free Transformer with Linear Complexity, 2021, section 3.

    Prefer it where similarities are to be symmetric and positive definite. The published low-rank form, with a
    pseudo-inverse, approximates this.
    """
    return Spec("""
        x[N,C]; where d : D
        q[a,d] = x[a,c]*wq[c,d]
        s[a,e] = exp(0 - 0.5*sum[d]((q[a,d] - q[e,d])*(q[a,d] - q[e,d])))
        y[a,b] = s[a,e]*x[e,c]*wv[c,b]
    """)


def reference(x, wq, wv):
    """Pair by pair."""
    q = x @ wq
    return np.array([sum(np.exp(-np.sum((a - e) ** 2) / 2) * (z @ wv) for e, z in zip(q, x, strict=True)) for a in q])
