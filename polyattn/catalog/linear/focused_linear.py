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

    Prefer it to `relu_linear` where sharp weights are wanted. The published depthwise convolution of the values is
    left out.
    """
    return Spec("""
        x[N,C]; where d, f : D
        rq[a,d] = relu(x[a,c]*wq[c,d]) + 1e-6
        rk[e,d] = relu(x[e,c]*wk[c,d]) + 1e-6
        lq[a] = sqrt(sum[d](rq[a,d]*rq[a,d]))
        cq[a] = sqrt(sum[d](rq[a,d]*rq[a,d]*rq[a,d]*rq[a,d]*rq[a,d]*rq[a,d]))
        lk[e] = sqrt(sum[d](rk[e,d]*rk[e,d]))
        ck[e] = sqrt(sum[d](rk[e,d]*rk[e,d]*rk[e,d]*rk[e,d]*rk[e,d]*rk[e,d]))
        q[a,d] = lq[a]*rq[a,d]*rq[a,d]*rq[a,d] / cq[a]
        k[e,d] = lk[e]*rk[e,d]*rk[e,d]*rk[e,d] / ck[e]
        z[a] = q[a,d]*k[e,d]
        y[a,b] = q[a,d]*k[e,d]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, wq, wk, wv):
    """Cubes that keep their norm."""

    def focused(a):
        cubes = (relu(a) + 1e-6) ** 3
        return np.array([np.linalg.norm(relu(r) + 1e-6) * c / np.linalg.norm(c) for r, c in zip(a, cubes, strict=True)])

    weights = focused(x @ wq) @ focused(x @ wk).T
    return np.array([row / row.sum() @ (x @ wv) for row in weights])
