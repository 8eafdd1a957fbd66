"""Global context block."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import layer_norm, relu, softmax

FACTS = Facts(
    title="Global context block",
    source="Cao et al., GCNet, 2019, section 3.3",
    year=2019,
    sizes={"N": 5, "C": 4, "R": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def global_context() -> Spec:
    """Return the map plus one vector for all positions: attention pooling, then a bottleneck with layer norm and relu.

    Source: Cao et al., GCNet, 2019, section 3.3.

    Prefer it to `nl` with softmax where the maps of all queries are alike: linear in N.
    """
    return Spec("""
        x[N,C]; where r : R
        p[e] = softmax[e](x[e,c]*wk[c])
        t[r] = p[e]*x[e,c]*w1[c,r]
        d[r] = t[r] - mean[s](t[s])
        n[r] = d[r]*g[r] / sqrt(1/R*d[s]*d[s] + 1e-5) + h[r]
        y[a,b] = x[a,b] + relu(n[r])*w2[r,b]
    """)


def reference(x, wk, w1, g, h, w2):
    """The context once, then each position."""
    context = softmax(x @ wk) @ x
    return np.array([z + relu(layer_norm(context @ w1) * g + h) @ w2 for z in x])
