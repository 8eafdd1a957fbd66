"""Tensor product attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Tensor product attention",
    source="Zhang et al., Tensor Product Attention Is All You Need, 2025, section 3",
    year=2025,
    sizes={"N": 4, "C": 4, "H": 2, "D": 3, "R": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def tensor_product() -> Spec:
    """Return attention whose queries, keys and values are sums of R products of a vector over heads and one over
    channels.

    Source: Zhang et al., Tensor Product Attention Is All You Need, 2025, section 3.

    Prefer it to `multi_head` where few numbers are to be kept of each past position: R (H + D) instead of H D.
    """
    return Spec("""
        x[N,C]; where h : H; where d : D; where r, s : R
        q[a,h,d] = 1/R * x[a,c]*qa[c,r,h]*x[a,f]*qb[f,r,d]
        k[e,h,d] = 1/R * x[e,c]*ka[c,r,h]*x[e,f]*kb[f,r,d]
        v[e,h,d] = 1/R * x[e,c]*va[c,r,h]*x[e,f]*vb[f,r,d]
        p[h,a,e] = softmax[e](1/sqrt(D) * q[a,h,d]*k[e,h,d])
        y[a,b] = p[h,a,e]*v[e,h,d]*wo[h,d,b]
    """)


def reference(x, qa, qb, ka, kb, va, vb, wo):
    """Outer products position by position, then attention head by head."""

    def factored(a, b):
        one = [sum(np.outer(z @ a[:, r], z @ b[:, r]) for r in range(a.shape[1])) / a.shape[1] for z in x]
        return np.array(one).swapaxes(0, 1)

    q, k, v = factored(qa, qb), factored(ka, kb), factored(va, vb)
    return sum(attend(q[h], k[h], v[h]) @ wo[h] for h in range(len(wo)))
