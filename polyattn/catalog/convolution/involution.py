"""Involution."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import around, relu

FACTS = Facts(
    title="Involution",
    source="Li et al., Involution: Inverting the Inherence of Convolution, 2021, section 2",
    year=2021,
    sizes={"H": 3, "W": 3, "G": 2, "M": 2, "R": 3},
    degree=None,
    reach={"H": 1, "W": 1},
)


def involution() -> Spec:
    """Return sums over 3 x 3 places with a kernel made from the position's own channels, one for each of G groups.

    Source: Li et al., Involution: Inverting the Inherence of Convolution, 2021, section 2.

    Prefer it to a convolution where kernels are to differ from place to place; each is shared by the channels of a
    group. Batch norm is left out.
    """
    return Spec("""
        x[H,W,C]; where C = G*M; where u, v : -1..1; where r : R
        h[i,j,r] = relu(x[i,j,c]*w0[c,r])
        k[i,j,u,v,g] = h[i,j,r]*w1[r,u,v,g]
        y[i,j,(g m)] = k[i,j,u,v,g]*x[i+u,j+v,(g m)]
    """)


def reference(x, w0, w1, G, M):
    """Position by position."""
    y = np.zeros_like(x)
    for i, j in np.ndindex(x.shape[:2]):
        kernel = np.tensordot(relu(x[i, j] @ w0), w1, 1)
        for (u, v), z in around(x, i, j, 1).items():
            y[i, j] += np.repeat(kernel[u + 1, v + 1], M) * z
    return y
