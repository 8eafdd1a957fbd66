"""Graph convolution."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu

FACTS = Facts(
    title="Graph convolution",
    source="Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, 2017, Eq. 2",
    year=2016,
    sizes={"N": 4, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def gcn() -> Spec:
    """Return relu of neighbours' features through one matrix, each divided by the roots of both degrees. The adjacency,
    with its loops, is an input; a node has degree 1 at least.

    Source: Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, 2017, Eq. 2.

    Prefer it to `gat` where edges have weights of their own.
    """
    return Spec("""
        x[N,C]; adj[N,N]; where b : D
        deg[a] = relu(sum[e](adj[a,e]) - 1) + 1
        y[a,b] = relu(adj[a,e]*x[e,c]*w[c,b] / (sqrt(deg[a])*sqrt(deg[e])))
    """)


def reference(x, adj, w):
    """Node by node."""
    degree, y = np.maximum(adj.sum(1), 1), []
    for a, row in enumerate(adj):
        y.append(relu(sum(row[e] * (x[e] @ w) / np.sqrt(degree[a] * degree[e]) for e in range(len(x)))))
    return np.array(y)
