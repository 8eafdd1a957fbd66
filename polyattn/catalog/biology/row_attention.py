"""Row attention with pair bias."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend, heads, sigmoid

FACTS = Facts(
    title="Row attention with pair bias",
    source="Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 7",
    year=2021,
    sizes={"S": 2, "N": 3, "C": 4, "E": 2, "H": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("S", "N"),
    relation="multi_head of each sequence where pairs and gate are constant",
)


def row_attention() -> Spec:
    """Return attention within each sequence, with a bias from a representation of pairs, and a gate.

    Source: Jumper et al., Highly accurate protein structure prediction with AlphaFold, 2021, supplement, algorithm 7.

    Prefer it where pairs are known beside the sequences. The layer norms are left out.
    """
    return Spec("""
        x[S,N,C]; z[N,N,E]; where C = H*D; where h : H; where d : D
        q[s,i,h,d] = x[s,i,c]*wq[c,(h d)]
        k[s,j,h,d] = x[s,j,c]*wk[c,(h d)]
        v[s,j,h,d] = x[s,j,c]*wv[c,(h d)]
        p[s,h,i,j] = softmax[j](1/sqrt(D) * q[s,i,h,d]*k[s,j,h,d] + z[i,j,e]*wb[e,h])
        y[s,i,b] = sigmoid(x[s,i,c]*wg[c,(h d)]) * p[s,h,i,j]*v[s,j,h,d]*wo[(h d),b]
    """)


def reference(x, z, wq, wk, wv, wb, wg, wo, H):
    """Sequence by sequence, head by head."""
    y, bias = [], z @ wb
    for row in x:
        parts = zip(heads(row @ wq, H), heads(row @ wk, H), heads(row @ wv, H), strict=True)
        found = [attend(q, k, v, bias[:, :, h]) for h, (q, k, v) in enumerate(parts)]
        y.append((sigmoid(row @ wg) * np.concatenate(found, axis=1)) @ wo)
    return np.array(y)
