"""ReLU linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu

FACTS = Facts(
    title="ReLU linear attention",
    source="Cai et al., EfficientViT, 2023, section 3.1",
    year=2023,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def relu_linear() -> Spec:
    """Return linear attention with features relu; a small number keeps the normaliser from 0.

    Source: Cai et al., EfficientViT, 2023, section 3.1.

    Prefer it to `linear_attention` on devices without fast exponentials. The published multi-scale convolutions are
    left out.
    """
    return Spec("""
        x[N,C]; where d : D
        q[a,d] = relu(x[a,c]*wq[c,d])
        k[e,d] = relu(x[e,c]*wk[c,d])
        z[a] = q[a,d]*k[e,d] + 1e-15
        y[a,b] = q[a,d]*k[e,d]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, wq, wk, wv):
    """Position by position, weights of all others."""
    y = []
    for q in relu(x @ wq):
        weights = np.array([q @ k for k in relu(x @ wk)])
        y.append(weights / (weights.sum() + 1e-15) @ (x @ wv))
    return np.array(y)
