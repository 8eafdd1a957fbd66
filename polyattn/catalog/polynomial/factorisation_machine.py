"""Factorisation machine."""

from polyattn.algebra import Spec
from polyattn.catalog.facts import Facts

FACTS = Facts(
    title="Factorisation machine",
    source="Rendle, Factorization Machines, 2010, Eq. 1 and Lemma 3.1",
    year=2010,
    sizes={"C": 4, "R": 2},
    degree=2,
)


def factorisation_machine() -> Spec:
    """Return a number: linear terms and all pairs of different features, each pair weighed by the product of two
    vectors.

    Source: Rendle, Factorization Machines, 2010, Eq. 1 and Lemma 3.1.

    Prefer it where pairs of sparse features matter: Lemma 3.1 makes it linear in C, and it is written so.
    """
    return Spec("""
        x[C]; where r : R
        y = b + x[c]*w[c] + 0.5*x[c]*v[c,r]*x[d]*v[d,r] - 0.5*x[c]*x[c]*v[c,r]*v[c,r]
    """)


def reference(x, b, w, v):
    """All pairs, as Eq. 1 has them."""
    pairs = sum(v[c] @ v[d] * x[c] * x[d] for c in range(len(x)) for d in range(c + 1, len(x)))
    return b + x @ w + pairs
