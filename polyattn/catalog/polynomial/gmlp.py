"""Spatial gating unit."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import gelu

FACTS = Facts(
    title="Spatial gating unit",
    source="Liu et al., Pay Attention to MLPs, 2021, section 3",
    year=2021,
    sizes={"N": 4, "C": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
)


def gmlp() -> Spec:
    """Return the gMLP block: `s(gelu(X U)) V`; s multiplies half of the channels by the other half, mixed along
    positions.

    Source: Liu et al., Pay Attention to MLPs, 2021, section 3.

    Prefer it to `mixer_token` where the mixing is to gate; N is fixed. The norm of the second half is left out.
    """
    return Spec("""
        x[N,C]; where d : D
        u[a,d] = gelu(x[a,c]*wu[c,(0 d)])
        g[a,d] = gelu(x[a,c]*wu[c,(1 d)])
        y[a,b] = u[a,d]*mix[a,e]*g[e,d]*wv[d,b] + u[a,d]*bias[a]*wv[d,b]
    """)


def reference(x, wu, mix, bias, wv):
    """Both halves of the channels."""
    z = gelu(x @ wu)
    half = z.shape[1] // 2
    return (z[:, :half] * (mix @ z[:, half:] + bias[:, None])) @ wv
