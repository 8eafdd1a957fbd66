"""Linformer."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Linformer",
    source="Wang et al., Linformer: Self-Attention with Linear Complexity, 2020, Eq. 7",
    year=2020,
    sizes={"N": 5, "C": 4, "D": 3, "K": 2},
    degree=None,
    reach={"N": "all"},
    relation="multi_head of one head where both matrices are the identity",
)


def linformer() -> Spec:
    """Return attention to K mixtures of keys and of values, made by two matrices over positions.

    Source: Wang et al., Linformer: Self-Attention with Linear Complexity, 2020, Eq. 7.

    Prefer it to `multi_head` where N is large and fixed: the matrices have the size N.
    """
    return Spec("""
        x[N,C]; where d : D; where m : K
        k[m,d] = we[m,e]*x[e,c]*wk[c,d]
        v[m,b] = wf[m,e]*x[e,c]*wv[c,b]
        p[a,m] = softmax[m](1/sqrt(D) * x[a,c]*wq[c,d]*k[m,d])
        y[a,b] = p[a,m]*v[m,b]
    """)


def reference(x, we, wk, wf, wv, wq):
    """Projected keys and values."""
    return attend(x @ wq, we @ (x @ wk), wf @ (x @ wv))
