"""Grouped-query attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Grouped-query attention",
    source="Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, 2023, section 2.2",
    year=2023,
    sizes={"N": 4, "C": 12, "G": 2, "H": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
    relation="multi_head at H = 1, multi_query at G = 1",
)


def grouped_query() -> Spec:
    """Return grouped-query attention: H heads of queries share the keys and values of each of G groups.

    Source: Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, 2023, section 2.2.

    Prefer it to `multi_head` where the cache of keys and values is to be small while decoding.
    """
    return Spec("""
        x[N,C]; where C = G*H*D; where K = G*D; where g : G; where h : H; where d : D
        q[a,g,h,d] = x[a,c]*wq[c,(g h d)]
        k[e,g,d] = x[e,c]*wk[c,(g d)]
        v[e,g,d] = x[e,c]*wv[c,(g d)]
        p[g,h,a,e] = softmax[e](1/sqrt(D) * q[a,g,h,d]*k[e,g,d])
        y[a,b] = p[g,h,a,e]*v[e,g,d]*wo[(g h d),b]
    """)


def reference(x, wq, wk, wv, wo, G, H):
    """Head by head, each with the keys of its group."""
    queries, keys, values = heads(x @ wq, G * H), heads(x @ wk, G), heads(x @ wv, G)
    parts = [attend(q, keys[n // H], values[n // H]) for n, q in enumerate(queries)]
    return np.concatenate(parts, axis=1) @ wo
