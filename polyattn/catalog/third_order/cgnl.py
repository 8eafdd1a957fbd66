"""Compact generalized non-local block."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Compact generalized non-local block",
    source="Yue et al., Compact Generalized Non-local Network, 2018, section 3",
    year=2018,
    sizes={"N": 5, "C": 4, "G": 3, "M": 2},
    reach={"N": "all"},
    equivariant=("N",),
    symmetries=((("wp", "wg"),),),
)


def cgnl(mean: bool = False, grouped: bool = False) -> Spec:
    """Return compact generalized NL: `vec(Y) = vec(Θ) (vec(Φ)ᵀ vec(V))` in each of G groups of channels, then `wz`.

    Source: Yue et al., Compact Generalized Non-local Network, 2018, section 3, with the dot-product kernel: positions
    and channels are flattened together, so every channel at every position attends to every other, and the product
    of Φ and V is one number for each group. Θ, Φ and V have D = G*M channels.

    Prefer it where correlations across channels matter and memory is short: linear in N, G numbers of context. Each
    group's output is Θ times a scalar, so within a group it reweights and does not move features. The published code
    may divide by sqrt(N*M), and has `wz` block-diagonal over the groups.

    Args:
        mean: divide the context by N*M, the number of its summands.
        grouped: the published block-diagonal `wz`: each group of channels is made of its own group only.
    """
    # The context sums over the positions and over the channels of a group.
    over = "1/N/M * " if mean else ""
    split, output = "", "y[a,b] = theta[a,g,m]*context[g]*wz[(g m),b]"
    if grouped:
        split, output = " where C = G*P;", "y[a,(g n)] = theta[a,g,m]*context[g]*wz[g,m,n]"
    return Spec(f"""
        x[N,C];{split} where D = G*M; where g : G; where m : M
        theta[a,g,m] = x[a,d]*wt[d,(g m)]
        phi[e,g,m] = x[e,f]*wp[f,(g m)]
        value[e,g,m] = x[e,h]*wg[h,(g m)]
        context[g] = {over}phi[e,g,m]*value[e,g,m]
        {output}
    """)


def reference(x, wt, wp, wg, wz, M):
    """Each group flattened: every channel at every position attends to every other."""
    theta, phi, value = x @ wt, x @ wp, x @ wg
    inner = np.empty_like(theta)
    for start in range(0, theta.shape[1], M):
        group = slice(start, start + M)
        attention = np.outer(theta[:, group].ravel(), phi[:, group].ravel())
        inner[:, group] = (attention @ value[:, group].ravel()).reshape(len(x), -1)
    return inner @ wz
