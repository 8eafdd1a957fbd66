"""Hydra attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import unit

FACTS = Facts(
    title="Hydra attention",
    source="Bolya et al., Hydra Attention: Efficient Attention with Many Heads, 2022, section 3",
    year=2022,
    sizes={"N": 5, "C": 4},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def hydra() -> Spec:
    """Return hydra attention: as many heads as channels, unit vectors as features, so that the context has C numbers.

    Source: Bolya et al., Hydra Attention: Efficient Attention with Many Heads, 2022, section 3.

    Prefer it where N and C are both large: 3 N C numbers beside the projections.
    """
    return Spec("""
        x[N,C]
        q[a,b] = x[a,c]*wq[c,b]
        k[a,b] = x[a,c]*wk[c,b]
        kn[e] = sqrt(sum[c](k[e,c]*k[e,c]))
        qn[a] = sqrt(sum[c](q[a,c]*q[a,c]))
        context[b] = k[e,b]*x[e,d]*wv[d,b] / kn[e]
        y[a,b] = q[a,b]*context[b] / qn[a]
    """)


def reference(x, wq, wk, wv):
    """One context for all positions."""
    context = sum(unit(z @ wk) * (z @ wv) for z in x)
    return np.array([unit(z @ wq) * context for z in x])
