"""Triangle attention around the starting node."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads, sigmoid

FACTS = Facts(
    title="Triangle attention around the starting node",
    source="Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 13",
    year=2021,
    sizes={"N": 3, "C": 4, "H": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def triangle_attention() -> Spec:
    """Return an update of pairs: the edge i to j attends to the edges i to k, with a bias from the edge j to k, and is
    gated.

    Source: Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm
    13.

    Prefer it to `triangle_outgoing` where the third node is to be chosen: N³ similarities. The layer norm is left
    out.
    """
    return Spec("""
        x[N,N,C]; where C = H*D; where h : H; where d : D
        q[i,j,h,d] = x[i,j,c]*wq[c,(h d)]
        k[i,k,h,d] = x[i,k,c]*wk[c,(h d)]
        v[i,k,h,d] = x[i,k,c]*wv[c,(h d)]
        p[h,i,j,k] = softmax[k](1/sqrt(D) * q[i,j,h,d]*k[i,k,h,d] + x[j,k,c]*wb[c,h])
        y[i,j,b] = sigmoid(x[i,j,c]*wg[c,(h d)] + bg[(h d)]) * p[h,i,j,k]*v[i,k,h,d]*wo[(h d),b]
    """)


def reference(x, wq, wk, wv, wb, wg, bg, wo, H):
    """Row by row, head by head."""
    y, bias = np.zeros_like(x), x @ wb
    for i, row in enumerate(x):
        parts = zip(heads(row @ wq, H), heads(row @ wk, H), heads(row @ wv, H), strict=True)
        found = [attend(q, k, v, bias[:, :, h]) for h, (q, k, v) in enumerate(parts)]
        y[i] = (sigmoid(row @ wg + bg) * np.concatenate(found, axis=1)) @ wo
    return y
