"""Differential attention."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Differential attention",
    source="Ye et al., Differential Transformer, 2024, Eq. 1",
    year=2024,
    sizes={"N": 5, "C": 4, "D": 3},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def differential() -> Spec:
    """Return differential attention: the difference of two softmax maps, the second times a scalar.

    Source: Ye et al., Differential Transformer, 2024, Eq. 1.

    Prefer it to `multi_head` where shares of positions without bearing are to cancel.
    """
    return Spec("""
        x[N,C]; where d : D
        p[a,e] = softmax[e](1/sqrt(D) * x[a,c]*wq1[c,d]*x[e,f]*wk1[f,d])
        r[a,e] = softmax[e](1/sqrt(D) * x[a,c]*wq2[c,d]*x[e,f]*wk2[f,d])
        y[a,b] = p[a,e]*x[e,c]*wv[c,b] - lam*r[a,e]*x[e,c]*wv[c,b]
    """)


def reference(x, wq1, wk1, wq2, wk2, wv, lam):
    """Two attentions with the same values."""
    return attend(x @ wq1, x @ wk1, x @ wv) - lam * attend(x @ wq2, x @ wk2, x @ wv)
