"""Fastformer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import softmax

FACTS = Facts(
    title="Fastformer",
    source="Wu et al., Fastformer: Additive Attention Can Be All You Need, 2021, section 3",
    year=2021,
    sizes={"N": 5, "C": 4},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def fastformer() -> Spec:
    """Return additive attention: queries are pooled to one vector, which multiplies the keys; these are pooled to one
    that multiplies the values.

    Source: Wu et al., Fastformer: Additive Attention Can Be All You Need, 2021, section 3.

    Prefer it where N is large and one summary of the sequence is enough: linear in N.
    """
    return Spec("""
        x[N,C]
        q[a,b] = x[a,c]*wq[c,b]
        alpha[a] = softmax[a](1/sqrt(C) * q[a,c]*ua[c])
        gq[b] = alpha[a]*q[a,b]
        p[e,b] = gq[b]*x[e,c]*wk[c,b]
        beta[e] = softmax[e](1/sqrt(C) * p[e,c]*ub[c])
        gk[b] = beta[e]*p[e,b]
        y[a,b] = q[a,b] + gk[d]*x[a,c]*wv[c,d]*wo[d,b]
    """)


def reference(x, wq, ua, wk, ub, wv, wo):
    """Two poolings one after the other."""
    q, root = x @ wq, np.sqrt(x.shape[1])
    pooled = softmax(q @ ua / root) @ q
    p = np.array([pooled * (z @ wk) for z in x])
    key = softmax(p @ ub / root) @ p
    return np.array([a + (key * (z @ wv)) @ wo for a, z in zip(q, x, strict=True)])
