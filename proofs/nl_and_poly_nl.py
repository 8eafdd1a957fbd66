"""NL and Poly-NL reach the same triplets and are not the same function; neither contains the other from C = 2 on.

Both are one position pattern with another channel core: `y[a,b] = x[a,d] core[d,f,h,b] x[e,f] x[e,h]`, with
`core = wf[d,f] wg[h,b]` in NL and `core = 1/N Σ_r I[d,r] w2[f,r] w1[h,r] w3[r,b]`, a CP decomposition of rank at most
C, in Poly-NL. Every triplet x[a,d] x[e,f] x[e,h] has a weight that is a product of parameters, and no other triplet
has any: that is the support statement. It needs a condition: that none of these parameters is zero.

Neither contains the other, for N >= 2 and C >= 2. For a != e the triplets are different monomials, so two layers that
agree have the same core, symmetrised over the two x at position e. Poly-NL's, at fixed d, is one symmetric matrix
(f,h) times a vector (b), so its unfolding (f,h) x b has rank at most 1; with wf = wg = I, NL's has rank 2. NL's, at
fixed b, is for each d a symmetrised product of wf[d,.] with wg[.,b], the same factor for all d; with w1 = w2 = I and w3
all ones, Poly-NL's are e0 e0ᵀ for d = 0 and e1 e1ᵀ for d = 1, which have no factor in common.
"""

from fractions import Fraction
from itertools import product

import polyattn as pa
from proofs.theorem import Claim, Theorem

NL, POLY_NL = str(pa.catalog.nl()), str(pa.catalog.poly_nl())
PATTERN = "x[N,C]\nwhere d, f, h : C\ny[a,b] = x[a,d]*core[d,f,h,b]*x[e,f]*x[e,h]"

THEOREM = Theorem(
    "NL and Poly-NL reach the same triplets, and are not the same function",
    "Poly-NL, section 4.1: both weight the triplets x[a,d] x[e,f] x[e,h]. Condition: all parameters are nonzero. "
    "Poly-NL is NL's position pattern with a CP-structured channel core of rank at most C; from N = 2 and C = 2 on "
    "neither layer contains the other.",
    (
        Claim("nl_core", "NL is the pattern with core = wf ⊗ wg", PATTERN, NL, ("core[d,f,h,b] = wf[d,f]*wg[h,b]",)),
        Claim(
            "poly_nl_core",
            "Poly-NL is the pattern with a CP core, its first factor being the identity",
            PATTERN,
            POLY_NL,
            ("core[d,f,h,b] = 1/N*u[d,r]*w2[f,r]*w1[h,r]*w3[r,b]", "u[d,r] = I[d,r]", "r : C"),
        ),
        Claim("nl_is_not_poly_nl", "with independent parameters they differ", NL, POLY_NL, holds=False),
        Claim(
            "nl_is_not_poly_nl_by_names",
            "nor is one the other with wf = w2ᵀ and wg = w1 w3 / N",
            NL,
            POLY_NL,
            ("wf[d,f] = w2[f,d]", "wg[h,b] = 1/N*w1[h,d]*w3[d,b]"),
            holds=False,
        ),
    ),
)


def test_nl_and_poly_nl():
    THEOREM.settle()


def test_the_two_reach_the_same_triplets():
    sizes = {"N": 3, "C": 2}
    supports = [_triplets(spec.interaction_tensor(sizes)) for spec in (pa.catalog.nl(), pa.catalog.poly_nl())]
    assert supports[0] == supports[1]
    assert supports[0] == {
        ((a, b), tuple(sorted([(a, d), (e, f), (e, h)])))
        for a, e in product(range(3), repeat=2)
        for b, d, f, h in product(range(2), repeat=4)
    }


def _triplets(entries):
    """The unordered triplets of (position, channel) that each entry of the output depends on."""
    return {((a, b), tuple(sorted([(c, d), (e, f), (g, h)]))) for a, b, c, d, e, f, g, h in entries}


def test_neither_contains_the_other_from_two_channels_on():
    nl = _core(lambda d, f, h, b: (d == f) * (h == b))
    assert max(_rank([nl[d, f, h, b] for b in range(2)] for f, h in _PAIRS) for d in range(2)) == 2
    poly = _core(lambda d, f, h, b: int(f == d and h == d))
    for b in range(2):
        first, second = ([[poly[d, f, h, b] for h in range(2)] for f in range(2)] for d in range(2))
        # e0 e0ᵀ and e1 e1ᵀ: a common factor v would make v parallel to e0 and to e1.
        assert (first, second) == ([[2, 0], [0, 0]], [[0, 0], [0, 2]])


_PAIRS = list(product(range(2), repeat=2))


def _core(entry):
    """A channel core at C = 2, symmetrised over the two x at one position."""
    return {(d, f, h, b): entry(d, f, h, b) + entry(d, h, f, b) for d, f, h, b in product(range(2), repeat=4)}


def _rank(rows):
    """The rank of a matrix of fractions, by elimination."""
    rows, rank = [[Fraction(v) for v in row] for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((k for k in range(rank, len(rows)) if rows[k][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for k in range(rank + 1, len(rows)):
            scale = rows[k][column] / rows[rank][column]
            rows[k] = [v - scale * p for v, p in zip(rows[k], rows[rank], strict=True)]
        rank += 1
    return rank
