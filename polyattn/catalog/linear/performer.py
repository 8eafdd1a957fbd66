"""Performer."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Performer",
    source="Choromanski et al., Rethinking Attention with Performers, 2021, section 2.3",
    year=2020,
    sizes={"N": 5, "C": 4, "D": 3, "M": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def performer() -> Spec:
    """Return attention with positive random features `exp(ω·q - |q|²/2)`, whose products estimate softmax attention.

    Source: Choromanski et al., Rethinking Attention with Performers, 2021, section 2.3.

    Prefer it to `linear_attention` where a trained softmax attention is to be approximated. The M directions ω are a
    parameter here; the paper draws them.
    """
    return Spec("""
        x[N,C]; where d, f : D; where m : M
        q[a,d] = x[a,c]*wq[c,d]
        k[e,d] = x[e,c]*wk[c,d]
        fq[a,m] = exp(q[a,d]*omega[m,d] - 0.5*sum[f](q[a,f]*q[a,f]))
        fk[e,m] = exp(k[e,d]*omega[m,d] - 0.5*sum[f](k[e,f]*k[e,f]))
        z[a] = fq[a,m]*fk[e,m]
        y[a,b] = fq[a,m]*fk[e,m]*x[e,c]*wv[c,b] / z[a]
    """)


def reference(x, wq, wk, omega, wv):
    """Features of each query and key by themselves."""

    def features(a):
        return np.array([[np.exp(w @ row - row @ row / 2) for w in omega] for row in a])

    weights = features(x @ wq) @ features(x @ wk).T
    return np.array([row / row.sum() @ (x @ wv) for row in weights])
