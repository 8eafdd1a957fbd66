"""Scaled cosine attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import heads, softmax, unit

FACTS = Facts(
    title="Scaled cosine attention",
    source="Liu et al., Swin Transformer V2, 2022, Eq. 2",
    year=2022,
    sizes={"N": 4, "C": 6, "H": 2},
    degree=None,
    reach={"N": "all"},
)


def cosine_attention() -> Spec:
    """Return scaled cosine attention: similarities are cosines times a temperature of each head, plus a bias of the
    difference of positions.

    Source: Liu et al., Swin Transformer V2, 2022, Eq. 2.

    Prefer it to `multi_head` in deep networks, where dot products grow. The published bias comes from a small
    network; here it is a table, and the window is the whole sequence.
    """
    return Spec("""
        x[N,C]; where C = H*D; where h : H; where d, i : D
        q[a,h,d] = x[a,c]*wq[c,(h d)]
        k[e,h,d] = x[e,c]*wk[c,(h d)]
        v[e,h,d] = x[e,c]*wv[c,(h d)]
        qn[a,h] = sqrt(sum[i](q[a,h,i]*q[a,h,i]))
        kn[e,h] = sqrt(sum[i](k[e,h,i]*k[e,h,i]))
        p[h,a,e] = softmax[e](t[h] * q[a,h,d]*k[e,h,d] / (qn[a,h]*kn[e,h]) + bias[h,a-e])
        y[a,b] = p[h,a,e]*v[e,h,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, t, bias, wo, H):
    """Head by head, similarity by similarity."""
    n, parts = len(x), []
    for h, (q, k, v) in enumerate(zip(*(heads(x @ w, H) for w in (wq, wk, wv)), strict=True)):
        cosines = unit(q) @ unit(k).T
        shift = np.array([[bias[h, a - e + n - 1] for e in range(n)] for a in range(n)])
        parts.append(softmax(t[h] * cosines + shift) @ v)
    return np.concatenate(parts, axis=1) @ wo
