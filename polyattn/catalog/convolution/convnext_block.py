"""ConvNeXt block."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import depthwise, gelu, layer_norm

FACTS = Facts(
    title="ConvNeXt block",
    source="Liu et al., A ConvNet for the 2020s, 2022, section 2.6",
    year=2022,
    sizes={"H": 7, "W": 7, "C": 2, "M": 3},
    degree=None,
    reach={"H": 3, "W": 3},
)


def convnext_block() -> Spec:
    """Return the block: 7 x 7 depthwise convolution, layer norm, perceptron with gelu, scale of each channel, residual.

    Source: Liu et al., A ConvNet for the 2020s, 2022, section 2.6.

    Prefer it where position mixing is to be local and cheap.
    """
    return Spec("""
        x[H,W,C]; where u, v : -3..3; where m : M
        z[i,j,c] = x[i+u,j+v,c]*wd[u,v,c] + bd[c]
        d[i,j,c] = z[i,j,c] - mean[b](z[i,j,b])
        n[i,j,c] = d[i,j,c]*g[c] / sqrt(1/C*d[i,j,b]*d[i,j,b] + 1e-6) + s[c]
        h[i,j,m] = gelu(n[i,j,c]*w1[c,m] + b1[m])
        y[i,j,b] = x[i,j,b] + h[i,j,m]*w2[m,b]*scale[b] + b2[b]*scale[b]
    """)


def reference(x, wd, bd, g, s, w1, b1, w2, b2, scale):
    """Convolution, then each position by itself."""
    n = layer_norm(depthwise(x, wd) + bd, 1e-6) * g + s
    return x + (gelu(n @ w1 + b1) @ w2 + b2) * scale
