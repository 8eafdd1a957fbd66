"""Spatial attention of CBAM."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import depthwise, sigmoid

FACTS = Facts(
    title="Spatial attention of CBAM",
    source="Woo et al., CBAM: Convolutional Block Attention Module, 2018, Eq. 3",
    year=2018,
    sizes={"H": 7, "W": 7, "C": 2},
    degree=None,
    reach={"H": 3, "W": 3},
    equivariant=("C",),
)


def cbam_spatial() -> Spec:
    """Return the map with its positions scaled by a 7 x 7 convolution of the channels' mean and maximum.

    Source: Woo et al., CBAM: Convolutional Block Attention Module, 2018, Eq. 3.

    Prefer it behind `cbam_channel`, as published.
    """
    return Spec("""
        x[H,W,C]; where u, v : -3..3
        m[i,j] = mean[c](x[i,j,c])
        t[i,j] = max[c](x[i,j,c])
        y[i,j,b] = x[i,j,b] * sigmoid(wm[u,v]*m[i+u,j+v] + wt[u,v]*t[i+u,j+v])
    """)


def reference(x, wm, wt):
    """Position by position."""
    means = depthwise(x.mean(-1, keepdims=True), wm[..., None])
    tops = depthwise(x.max(-1, keepdims=True), wt[..., None])
    return x * sigmoid(means + tops)
