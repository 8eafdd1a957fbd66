"""Recursive gated convolution."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import depthwise

FACTS = Facts(
    title="Recursive gated convolution",
    source="Rao et al., HorNet, 2022, section 3.1",
    year=2022,
    sizes={"H": 3, "W": 3, "C": 3, "R": 2, "S": 3},
    reach={"H": 1, "W": 1},
)


def recursive_gated() -> Spec:
    """Return g³Conv with two gates: R channels times a depthwise convolution, then S channels times another.

    Source: Rao et al., HorNet, 2022, section 3.1.

    Prefer it where products of neighbours of the third order are wanted without functions.
    """
    return Spec("""
        x[H,W,C]; where u, v : -1..1; where r : R; where s : S
        q0[i,j,r] = x[i,j,c]*wq0[c,r]
        q1[i,j,s] = x[i,j,c]*wq1[c,s]
        p0[i,j,r] = x[i,j,c]*wp[c,r]
        p1[i,j,r] = p0[i,j,r]*q0[i+u,j+v,r]*f0[u,v,r]
        p2[i,j,s] = p1[i,j,r]*g1[r,s]*q1[i+u,j+v,s]*f1[u,v,s]
        y[i,j,b] = p2[i,j,s]*wo[s,b]
    """)


def reference(x, wq0, wq1, wp, f0, g1, f1, wo):
    """Gate after gate."""
    p = (x @ wp) * depthwise(x @ wq0, f0)
    return ((p @ g1) * depthwise(x @ wq1, f1)) @ wo
