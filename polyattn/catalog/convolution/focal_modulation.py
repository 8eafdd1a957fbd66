"""Focal modulation."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import depthwise, gelu

FACTS = Facts(
    title="Focal modulation",
    source="Yang et al., Focal Modulation Networks, 2022, section 3",
    year=2022,
    sizes={"H": 3, "W": 3, "C": 3},
    degree=None,
    reach={"H": "all", "W": "all"},
)


def focal_modulation() -> Spec:
    """Return queries times a modulator: two levels of depthwise convolutions and the mean of the map, each with a gate.

    Source: Yang et al., Focal Modulation Networks, 2022, section 3.

    Prefer it to `multi_head` on large maps: context is summed before the query meets it. Levels of 3 x 3 here; the
    paper has larger ones.
    """
    return Spec("""
        x[H,W,C]; where u, v : -1..1; where b, d, f : C
        z0[i,j,b] = x[i,j,c]*wz[c,b]
        z1[i,j,c] = gelu(z0[i+u,j+v,c]*w1[u,v,c])
        z2[i,j,c] = gelu(z1[i+u,j+v,c]*w2[u,v,c])
        top[c] = gelu(mean[i,j](z2[i,j,c]))
        g1[i,j] = x[i,j,c]*wg1[c]
        g2[i,j] = x[i,j,c]*wg2[c]
        g3[i,j] = x[i,j,c]*wg3[c]
        m[i,j,c] = g1[i,j]*z1[i,j,c] + g2[i,j]*z2[i,j,c] + g3[i,j]*top[c]
        y[i,j,b] = x[i,j,c]*wq[c,d] * m[i,j,f]*wh[f,d] * wo[d,b]
    """)


def reference(x, wz, w1, w2, wg1, wg2, wg3, wq, wh, wo):
    """Level by level."""
    first = gelu(depthwise(x @ wz, w1))
    second = gelu(depthwise(first, w2))
    top = gelu(second.mean((0, 1)))
    parts = ((x @ wg1)[..., None] * first, (x @ wg2)[..., None] * second, (x @ wg3)[..., None] * top)
    return ((x @ wq) * (sum(parts) @ wh)) @ wo
