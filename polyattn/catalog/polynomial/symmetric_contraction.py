"""Symmetric contraction."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Symmetric contraction",
    source="Batatia et al., MACE: Higher Order Equivariant Message Passing, 2022, section 4",
    year=2022,
    sizes={"N": 2, "K": 3, "L": 3, "P": 2, "Q": 2},
    degree=4,
    equivariant=("N", "L"),
)


def symmetric_contraction() -> Spec:
    """Return products of two and of three features of one atom and channel, coupled by generalised Clebsch-Gordan
    tensors: an equivariant layer of body order four.

    Source: Batatia et al., MACE: Higher Order Equivariant Message Passing, 2022, section 4.

    Prefer it where features are spherical harmonics: with the tensors u2 and u3 of the paper, which are inputs here,
    rotations of the input rotate the output. The degree counts these inputs.
    """
    return Spec("""
        x[N,K,L]; u2[L,L,L,Q]; u3[L,L,L,L,P]; where p : P; where q : Q
        y[a,k,m] = u2[m,i,j,q]*w2[k,q]*x[a,k,i]*x[a,k,j] + u3[m,i,j,l,p]*w3[k,p]*x[a,k,i]*x[a,k,j]*x[a,k,l]
    """)


def reference(x, u2, u3, w2, w3):
    """Atom by atom, channel by channel."""
    y = np.zeros_like(x)
    for a, k in np.ndindex(x.shape[:2]):
        z = x[a, k]
        y[a, k] = u2 @ w2[k] @ z @ z + u3 @ w3[k] @ z @ z @ z
    return y
