"""Multi-head attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Multi-head attention",
    source="Vaswani et al., Attention Is All You Need, 2017, section 3.2.2",
    year=2017,
    sizes={"N": 5, "C": 6, "H": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def multi_head() -> Spec:
    """Return multi-head attention: `softmax(Q Kᵀ / sqrt(D)) V` in each of H heads of D channels, then one matrix.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.2.2.

    Prefer it where every pair of positions is to be weighed by content and N² similarities are affordable.
    """
    return Spec("""
        x[N,C]; where C = H*D; where h : H; where d : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[a,h,d] = x[a,c]*wk[c,(h d)]
        v[a,h,d] = x[a,c]*wv[c,(h d)]
        p[h,a,e] = softmax[e](1/sqrt(D) * q[a,h,d]*k[e,h,d])
        y[a,b] = p[h,a,e]*v[e,h,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, wo, H):
    """Head by head."""
    parts = zip(heads(x @ wq, H), heads(x @ wk, H), heads(x @ wv, H), strict=True)
    return np.concatenate([attend(q, k, v) for q, k, v in parts], axis=1) @ wo
