"""Cross-covariance attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import heads, softmax, unit

FACTS = Facts(
    title="Cross-covariance attention",
    source="El-Nouby et al., XCiT: Cross-Covariance Image Transformers, 2021, section 3.2",
    year=2021,
    sizes={"N": 5, "C": 6, "H": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def xca() -> Spec:
    """Return cross-covariance attention: softmax attention between the D channels of each head, with unit vectors over
    positions.

    Source: El-Nouby et al., XCiT: Cross-Covariance Image Transformers, 2021, section 3.2.

    Prefer it to `multi_head` where N is large: linear in N, H maps of D x D.
    """
    return Spec("""
        x[N,C]; where C = H*D; where h : H; where d, i : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[a,h,d] = x[a,c]*wk[c,(h d)]
        v[a,h,d] = x[a,c]*wv[c,(h d)]
        u[h,d] = sqrt(sum[a](q[a,h,d]*q[a,h,d]))
        w[h,d] = sqrt(sum[a](k[a,h,d]*k[a,h,d]))
        p[h,d,i] = softmax[i](t[h] * q[a,h,d]*k[a,h,i] / (u[h,d]*w[h,i]))
        y[a,b] = p[h,d,i]*v[a,h,i]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, t, wo, H):
    """Head by head, channels in the place of positions."""
    parts = []
    for h, (q, k, v) in enumerate(zip(*(heads(x @ w, H) for w in (wq, wk, wv)), strict=True)):
        parts.append((softmax(t[h] * unit(q.T) @ unit(k.T).T) @ v.T).T)
    return np.concatenate(parts, axis=1) @ wo
