"""Large kernel attention."""

import numpy as np

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import depthwise

FACTS = Facts(
    title="Large kernel attention",
    source="Guo et al., Visual Attention Network, 2022, section 3",
    year=2022,
    sizes={"H": 9, "W": 9, "C": 2},
    degree=2,
    reach={"H": 4, "W": 4},
)


def large_kernel() -> Spec:
    """Return the map times a convolution of itself: depthwise, depthwise with dilation 3, pointwise; kernels of 3 x 3
    here.

    Source: Guo et al., Visual Attention Network, 2022, section 3.

    Prefer it where gates are to see far without the whole map: the published kernels are 5 x 5 and 7 x 7.
    """
    return Spec("""
        x[H,W,C]; where u, v : -1..1
        z[i,j,c] = x[i+u,j+v,c]*w1[u,v,c]
        t[i,j,c] = z[i+3*u,j+3*v,c]*w2[u,v,c]
        y[i,j,b] = x[i,j,b]*t[i,j,c]*w3[c,b]
    """)


def reference(x, w1, w2, w3):
    """A kernel with holes is a large kernel with zeros."""
    wide = np.zeros((7, 7, x.shape[2]))
    wide[::3, ::3] = w2
    return x * (depthwise(depthwise(x, w1), wide) @ w3)
