"""Multi-query attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Multi-query attention",
    source="Shazeer, Fast Transformer Decoding: One Write-Head is All You Need, 2019, section 3",
    year=2019,
    sizes={"N": 5, "C": 6, "H": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
    relation="grouped_query at G = 1",
)


def multi_query() -> Spec:
    """Return multi-query attention: H heads of queries, one head of keys and values.

    Source: Shazeer, Fast Transformer Decoding: One Write-Head is All You Need, 2019, section 3.

    Prefer it to `multi_head` where decoding is bound by reading keys and values.
    """
    return Spec("""
        x[N,C]; where C = H*D; where h : H; where d : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[e,d] = x[e,c]*wk[c,d]
        v[e,d] = x[e,c]*wv[c,d]
        p[h,a,e] = softmax[e](1/sqrt(D) * q[a,h,d]*k[e,d])
        y[a,b] = p[h,a,e]*v[e,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, wo, H):
    """Head by head, all with the same keys."""
    return np.concatenate([attend(q, x @ wk, x @ wv) for q in heads(x @ wq, H)], axis=1) @ wo
