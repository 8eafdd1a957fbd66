"""Deep & cross network."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Deep & cross network",
    source="Wang et al., DCN V2, 2021, Eq. 1",
    year=2020,
    sizes={"C": 4},
)


def cross_network() -> Spec:
    """Return two cross layers: `x0 ⊙ (W x + b) + x`, starting at x0.

    Source: Wang et al., DCN V2, 2021, Eq. 1.

    Prefer it to `factorisation_machine` where the pairs are to have full matrices; each layer adds one to the degree.
    """
    return Spec("""
        x[C]
        h[b] = x[b]*w1[b,c]*x[c] + x[b]*b1[b] + x[b]
        y[b] = x[b]*w2[b,c]*h[c] + x[b]*b2[b] + h[b]
    """)


def reference(x, w1, b1, w2, b2):
    """Layer by layer."""
    h = x * (w1 @ x + b1) + x
    return x * (w2 @ h + b2) + h
