"""Pooling by multi-head attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Pooling by multi-head attention",
    source="Lee et al., Set Transformer, 2019, Eq. 11",
    year=2019,
    sizes={"N": 4, "C": 4, "H": 2, "M": 3},
    degree=None,
    equivariant=("N",),
    relation="perceiver of H heads, with a residual",
)


def pma() -> Spec:
    """Return M vectors of a set: learned seeds attend to its elements, plus the seeds themselves.

    Source: Lee et al., Set Transformer, 2019, Eq. 11.

    Prefer it to a mean where several summaries are wanted. The feed-forward layers and norms of the block are left
    out.
    """
    return Spec("""
        x[N,C]; where C = H*D; where c : C; where h : H; where d : D; where m : M
        s[m,b] = seed[m,c]*ws[c,b]
        q[m,h,d] = seed[m,c]*wq[c,(h d)]
        p[h,m,a] = softmax[a](1/sqrt(D) * q[m,h,d]*x[a,c]*wk[c,(h d)])
        y[m,b] = s[m,b] + p[h,m,a]*x[a,c]*wv[c,(h d)]*wo[(h d),b]
    """)


def reference(x, seed, ws, wq, wk, wv, wo, H):
    """Head by head."""
    parts = zip(heads(seed @ wq, H), heads(x @ wk, H), heads(x @ wv, H), strict=True)
    return seed @ ws + np.concatenate([attend(q, k, v) for q, k, v in parts], axis=1) @ wo
