"""Induced set attention."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts
from polyattn.catalog.loops import attend

FACTS = Facts(
    title="Induced set attention",
    source="Lee et al., Set Transformer, 2019, Eq. 9 and 10",
    year=2019,
    sizes={"N": 4, "C": 4, "M": 3, "D": 2},
    degree=None,
    reach={"N": "all"},
    equivariant=("N",),
)


def induced_set() -> Spec:
    """Return attention of a set to M induced points, which have attended to the set; one head, without norms and
    feed-forward layers.

    Source: Lee et al., Set Transformer, 2019, Eq. 9 and 10.

    Prefer it to `multi_head` where N is large: two maps of N x M.
    """
    return Spec("""
        x[N,C]; where c : C; where m : M; where d : D
        q1[m,d] = points[m,c]*wq1[c,d]
        p[m,a] = softmax[a](1/sqrt(D) * q1[m,d]*x[a,c]*wk1[c,d])
        z[m,b] = points[m,b] + p[m,a]*x[a,c]*wv1[c,b]
        s[a,m] = softmax[m](1/sqrt(D) * x[a,c]*wq2[c,d]*z[m,f]*wk2[f,d])
        y[a,b] = x[a,b] + s[a,m]*z[m,c]*wv2[c,b]
    """)


def reference(x, points, wq1, wk1, wv1, wq2, wk2, wv2):
    """Points read the set, the set reads the points."""
    z = points + attend(points @ wq1, x @ wk1, x @ wv1)
    return x + attend(x @ wq2, z @ wk2, z @ wv2)
