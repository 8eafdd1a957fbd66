"""Cross-attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads

FACTS = Facts(
    title="Cross-attention",
    source="Vaswani et al., Attention Is All You Need, 2017, section 3.2.3",
    year=2017,
    sizes={"N": 4, "C": 6, "M": 5, "E": 3, "H": 2},
    degree=None,
    equivariant=("N", "M"),
    relation="multi_head where z = x",
)


def cross_attention() -> Spec:
    """Return cross-attention: queries from the N positions of x, keys and values from the M positions of z.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.2.3.

    Prefer it where one sequence is to read another, of any length and number of channels.
    """
    return Spec("""
        x[N,C]; z[M,E]; where C = H*D; where h : H; where d : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[e,h,d] = z[e,f]*wk[f,(h d)]
        v[e,h,d] = z[e,f]*wv[f,(h d)]
        p[h,a,e] = softmax[e](1/sqrt(D) * q[a,h,d]*k[e,h,d])
        y[a,b] = p[h,a,e]*v[e,h,d]*wo[(h d),b]
    """)


def reference(x, z, wq, wk, wv, wo, H):
    """Head by head."""
    parts = zip(heads(x @ wq, H), heads(z @ wk, H), heads(z @ wv, H), strict=True)
    return np.concatenate([attend(q, k, v) for q, k, v in parts], axis=1) @ wo
