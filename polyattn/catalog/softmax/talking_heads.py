"""Talking-heads attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import heads, softmax

FACTS = Facts(
    title="Talking-heads attention",
    source="Shazeer et al., Talking-Heads Attention, 2020, section 4",
    year=2020,
    sizes={"N": 4, "C": 6, "H": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
    relation="multi_head where both mixing matrices are the identity",
)


def talking_heads() -> Spec:
    """Return talking-heads attention: similarities are mixed across heads before the softmax, shares after it.

    Source: Shazeer et al., Talking-Heads Attention, 2020, section 4.

    Prefer it to `multi_head` where heads of few channels are to share their findings; the N x N maps are then
    explicit.
    """
    return Spec("""
        x[N,C]; where C = H*D; where h, i : H; where d : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[e,h,d] = x[e,c]*wk[c,(h d)]
        v[e,h,d] = x[e,c]*wv[c,(h d)]
        p[i,a,e] = softmax[e](1/sqrt(D) * q[a,h,d]*k[e,h,d]*before[h,i])
        y[a,b] = p[i,a,e]*after[i,h]*v[e,h,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, before, after, wo, H):
    """Maps of all heads first, then each head's sum of values."""
    queries, keys, values = (heads(x @ w, H) for w in (wq, wk, wv))
    raw = [q @ k.T / np.sqrt(q.shape[1]) for q, k in zip(queries, keys, strict=True)]
    shares = [softmax(sum(before[h, i] * raw[h] for h in range(H))) for i in range(H)]
    mixed = [sum(after[i, h] * shares[i] for i in range(H)) for h in range(H)]
    return np.concatenate([p @ v for p, v in zip(mixed, values, strict=True)], axis=1) @ wo
