"""cosFormer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu

FACTS = Facts(
    title="cosFormer",
    source="Qin et al., cosFormer: Rethinking Softmax in Attention, 2022, section 3",
    year=2022,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def cosformer() -> Spec:
    """Return linear attention with features relu, reweighted by the cosine of two positions' distance, as two products.

    Source: Qin et al., cosFormer: Rethinking Softmax in Attention, 2022, section 3.

    Prefer it to `relu_linear` where near positions matter more. The tables of cosines and sines are inputs.
    """
    return Spec("""
        x[N,C]; cosine[N]; sine[N]; where d : D
        q[a,d] = relu(x[a,c]*wq[c,d])
        k[e,d] = relu(x[e,c]*wk[c,d])
        s[a,e] = q[a,d]*k[e,d]*cosine[a]*cosine[e] + q[a,d]*k[e,d]*sine[a]*sine[e]
        z[a] = sum[e](s[a,e]) + 1e-6
        y[a,b] = s[a,e]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, cosine, sine, wq, wk, wv):
    """Position by position."""
    y = []
    for a, q in enumerate(relu(x @ wq)):
        near = cosine[a] * cosine + sine[a] * sine
        weights = np.array([q @ k * n for k, n in zip(relu(x @ wk), near, strict=True)])
        y.append(weights / (weights.sum() + 1e-6) @ (x @ wv))
    return np.array(y)
