"""Lambda layer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Lambda layer",
    source="Bello, LambdaNetworks: Modeling Long-Range Interactions Without Attention, 2021, section 3.1",
    year=2021,
    sizes={"N": 4, "C": 3, "K": 2, "V": 3, "H": 2},
    degree=None,
    reach={"N": "all"},
)


def lambda_layer() -> Spec:
    """Return the lambda layer: a linear map from keys and values for all positions, one from relative positions for
    each, applied to H queries.

    Source: Bello, LambdaNetworks: Modeling Long-Range Interactions Without Attention, 2021, section 3.1.

    Prefer it to `multi_head` where the N x N maps are too large; with `embed` of 2N - 1 rows N is fixed.
    """
    return Spec("""
        x[N,C]; where k : K; where v : V; where h : H
        key[e,k] = softmax[e](x[e,c]*wk[c,k])
        value[e,v] = x[e,c]*wv[c,v]
        content[k,v] = key[e,k]*value[e,v]
        place[a,k,v] = embed[a-e,k]*value[e,v]
        q[a,h,k] = x[a,c]*wq[c,h,k]
        y[a,h,v] = q[a,h,k]*content[k,v] + q[a,h,k]*place[a,k,v]
    """)


def reference(x, wk, wv, embed, wq):
    """The lambda of each position, then its queries."""
    n, y = len(x), []
    for a in range(n):
        lam = sum(np.outer(softmax(x @ wk, 0)[e] + embed[a - e + n - 1], x[e] @ wv) for e in range(n))
        y.append(np.einsum("chk,c->hk", wq, x[a]) @ lam)
    return np.array(y)
