"""Graph isomorphism layer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu

FACTS = Facts(
    title="Graph isomorphism layer",
    source="Xu et al., How Powerful are Graph Neural Networks?, 2019, Eq. 4.1",
    year=2018,
    sizes={"N": 4, "C": 3, "H": 4},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def gin() -> Spec:
    """Return a perceptron of each node's features, times 1 + ε, plus the sum of its neighbours'; the adjacency is an
    input.

    Source: Xu et al., How Powerful are Graph Neural Networks?, 2019, Eq. 4.1.

    Prefer it to `gcn` where the number of neighbours is to be kept.
    """
    return Spec("""
        x[N,C]; adj[N,N]; where h : H
        s[a,c] = x[a,c] + eps*x[a,c] + adj[a,e]*x[e,c]
        y[a,b] = relu(s[a,c]*w1[c,h])*w2[h,b]
    """)


def reference(x, adj, eps, w1, w2):
    """Node by node."""
    sums = [(1 + eps) * z + sum(w * e for w, e in zip(row, x, strict=True)) for z, row in zip(x, adj, strict=True)]
    return relu(np.array(sums) @ w1) @ w2
