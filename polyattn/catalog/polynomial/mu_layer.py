"""Mu-layer of multilinear operator networks."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Mu-layer of multilinear operator networks",
    source="Cheng et al., Multilinear Operator Networks, 2024, section 3",
    year=2024,
    sizes={"N": 3, "C": 4, "R": 3, "S": 2},
    degree=2,
    equivariant=("N",),
)


def mu_layer() -> Spec:
    """Return the Mu-layer of MONet: `C ((A z) ⊙ (B D z) + A z)`, each position by itself.

    Source: Cheng et al., Multilinear Operator Networks, 2024, section 3.

    Prefer it to a perceptron where the network is to be without functions: layers in a row reach every degree.
    """
    return Spec("""
        x[N,C]; where r : R; where s : S
        u[a,r] = x[a,c]*wa[c,r]
        v[a,r] = x[a,c]*wd[c,s]*wb[s,r]
        y[a,b] = u[a,r]*v[a,r]*wc[r,b] + u[a,r]*wc[r,b]
    """)


def reference(x, wa, wd, wb, wc):
    """Position by position."""
    return np.array([((z @ wa) * (z @ wd @ wb) + z @ wa) @ wc for z in x])
