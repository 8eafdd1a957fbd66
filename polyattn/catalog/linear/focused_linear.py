"""Focused linear attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import relu

FACTS = Facts(
    title="Focused linear attention",
    source="Han et al., FLatten Transformer, 2023, section 3",
    year=2023,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def focused_linear() -> Spec:
    """Return linear attention whose features are cubes of relu, scaled back to the length of the vector.

    Source: Han et al., FLatten Transformer, 2023, section 3.

    Prefer it to `relu_linear` where sharp weights are wanted. Small numbers keep denominators from 0; the published
    depthwise convolution of the values is left out.
    """
    return Spec("""
        x[N,C]; where d : D
        rq[a,d] = relu(x[a,c]*wq[c,d])
        rk[e,d] = relu(x[e,c]*wk[c,d])
        q2[a,d] = rq[a,d]*rq[a,d]
        k2[e,d] = rk[e,d]*rk[e,d]
        lq[a] = sqrt(sum[d](q2[a,d])) / sqrt(sum[d](q2[a,d]*q2[a,d]*q2[a,d]) + 1e-12)
        lk[e] = sqrt(sum[d](k2[e,d])) / sqrt(sum[d](k2[e,d]*k2[e,d]*k2[e,d]) + 1e-12)
        q[a,d] = lq[a]*rq[a,d]*q2[a,d]
        k[e,d] = lk[e]*rk[e,d]*k2[e,d]
        z[a] = q[a,d]*k[e,d] + 1e-6
        y[a,b] = q[a,d]*k[e,d]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, wq, wk, wv):
    """Cubes that keep their norm."""

    def focused(a):
        return [np.linalg.norm(r) * r**3 / np.sqrt(np.sum(r**6) + 1e-12) for r in relu(a)]

    weights = np.array([[q @ k for k in focused(x @ wk)] for q in focused(x @ wq)])
    return np.array([row / (row.sum() + 1e-6) @ (x @ wv) for row in weights])
