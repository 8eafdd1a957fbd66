"""Graph attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import leaky, softmax

FACTS = Facts(
    title="Graph attention",
    source="Veličković et al., Graph Attention Networks, 2018, Eq. 3 and 4",
    year=2017,
    sizes={"N": 4, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def gat() -> Spec:
    """Return sums of neighbours with shares by a leaky relu of two projections; the logarithm of the adjacency is an
    input that is added, 0 at edges.

    Source: Veličković et al., Graph Attention Networks, 2018, Eq. 3 and 4.

    Prefer it to `gcn` where neighbours are to be weighed by content. One head, without the function behind it.
    """
    return Spec("""
        x[N,C]; mask[N,N]; where d : D
        h[a,d] = x[a,c]*w[c,d]
        s[a,e] = h[a,d]*left[d] + h[e,f]*right[f]
        p[a,e] = softmax[e](relu(s[a,e]) - 0.2*relu(0 - s[a,e]) + mask[a,e])
        y[a,d] = p[a,e]*h[e,d]
    """)


def reference(x, mask, w, left, right):
    """Node by node."""
    h, y = x @ w, []
    for a, row in zip(h, mask, strict=True):
        scores = np.array([leaky(a @ left + e @ right) for e in h])
        y.append(softmax(scores + row) @ h)
    return np.array(y)
