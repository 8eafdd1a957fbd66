"""`==` of polynomials is an equivalence relation, hashes agree with it, and `prove` says the same of texts."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.errors import ProofError
from polyattn.language.syntax import Split
from polyattn.testing import edited, equivalent_pairs
from tests.drawing import share

SMALL = {"max_degree": 2, "max_indices": 5, "max_monomials": 3, "max_intermediates": 1}
PARTS = [("Za", "Zb"), ("Zb", "Za"), ("2", "Zc"), ("Zd", "Zd"), ("Ze", "3", "Zf")]


def polynomial(text: str) -> pa.Polynomial:
    return pa.Spec(text).polynomial()


def proved(one: pa.Polynomial, other: pa.Polynomial) -> bool:
    try:
        return bool(pa.prove(one, other, effort=50))
    except ProofError:  # other inputs, other shapes
        return False


def assert_equivalence(polynomials) -> None:
    """Reflexive, symmetric and transitive, with hashes that agree."""
    for p, q in product(polynomials, repeat=2):
        assert (p == q) is (q == p)
        assert p != q or hash(p) == hash(q)
        assert (p is not q) or p == q
        for r in polynomials:
            assert not (p == q and q == r) or p == r


@st.composite
def relatives(draw) -> list[pa.Polynomial]:
    """Polynomials of one text, of an equal and an edited one, each also over some split of one of its sizes."""
    text, same = draw(equivalent_pairs(**SMALL))
    found = []
    for p in map(polynomial, (text, same, draw(edited(text)))):
        size = draw(st.sampled_from(p.signature.sizes.atomic or ("N",)))
        found += [p, p.refined((Split(size, draw(st.sampled_from(PARTS))),))]
    return found


@share(0.2)
@given(relatives())
def test_equality_is_an_equivalence_relation_and_what_prove_says(polynomials):
    assert_equivalence(polynomials)
    first, *others = polynomials
    for other in others:
        assert (first == other) is proved(first, other)


@share(0.25)
@given(relatives())
def test_the_coarsest_form_is_the_polynomial_itself_and_its_own_coarsest_form(polynomials):
    for p in polynomials:
        undone = tuple(s for s in p.signature.sizes.splits if s not in p.coarse.signature.sizes.splits)
        again = p.coarse.refined(p.signature.sizes.splits)
        assert (again.terms, again.signature.output_shape) == (p.terms, p.signature.output_shape)
        assert not undone or p.coarse is not p
        assert p.coarse.coarse is p.coarse


CLASSES = [
    [
        "x[N,C]; y[a,b] = x[a,b]",
        "x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]",
        "x[N,C]; where C = H*K; y[a,b] = x[a,b]",
        "x[N,C]; where C = M*G; y[a,(m g)] = x[a,(n h)]*I[n,m]*I[h,g]",
        "x[N,C]; where C = G*H; where G = A*B; y[a,(i j k)] = x[a,(i j k)]",
        "x[N,C]; where D = G*M; where N = C*Q; y[a,b] = x[a,b]",
    ],
    [
        "x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g n)]*u[n,m]",
        "x[N,C]; where C = G*M; where N = H*W; y[(i j),(g m)] = x[(i j),(g n)]*u[n,m]",
    ],
    ["x[N,C]; where C = M*G; y[a,(m g)] = x[a,(n g)]*u[n,m]"],
    [
        "x[N,C]; y[a,b] = 1/C*x[a,b]",
        "x[N,C]; where C = G*M; y[a,b] = 1/G/M*x[a,b]",
        "x[N,C]; where C = 2*K; y[a,b] = 1/2/K*x[a,b]",
        "x[N,C]; where C = T*T; y[a,b] = T/T/T/T*x[a,b]",
    ],
    ["x[N,C]; where C = G*M; y[a,b] = 1/M*x[a,b]", "x[N,C]; where C = G*M; y[a,b] = G/C*x[a,b]"],
    ["x[N,C]; where m : M; y[a,b] = 1/M*x[a,b]"],
    [
        "x[N,C]; where r : G; y[a,b] = x[a,b]*u[r]/G",
        "x[N,C]; where C = G*M; where r : G; y[a,b] = x[a,b]*u[r]*M/C",
    ],
    [
        "x[N,C]; f[a,b] = softmax[b](x[a,b]*x[e,b]); m = max[a,b](f[a,b]); y[a,b] = m*f[a,b]",
        "x[N,C]; where C=G*M; f[a,(g m)] = softmax[g,m](x[a,(g m)]*x[e,(g m)]); t=max[a,b](f[a,b]); y[a,b] = t*f[a,b]",
        "x[N,C]; where C = H*K; f[a,b] = softmax[b](x[a,b]*x[e,b]); m = max[a,h,k](f[a,(h k)]); y[a,b] = m*f[a,b]",
    ],
    ["x[N,C]; where C = G*M; f[a,(g m)] = softmax[m](x[a,(g m)]); y[a,b] = f[a,b]"],
    [
        "x[N,C]; f[a,b] = softmax[b](x[a,c]*I[b,b]); y[a,b] = f[a,b]",
        "x[N,C]; where C = G*M; f[a,b] = softmax[b](x[a,c]*I[b,b]); y[a,(g m)] = f[a,(g m)]",
    ],
    ["x[N,C]; y[b,d] = I[b,d]*x[a,b]", "x[N,C]; where C = G*M; y[b,(h n)] = I[b,(h n)]*x[a,b]"],
    ["x[N,C]; where C = G*M; y[(g m),(h n)] = I[g,h]*x[a,(g m)]*v[n,m]"],
    ["x[N,C]; z[G]; y[a,b] = x[a,b]", "x[N,C]; z[G]; where C = G*M; y[a,b] = x[a,b]"],
    ["x[N,C]; where C = G*M; y[a,g,m] = x[a,(g m)]"],
]


@pytest.mark.parametrize("kind", range(len(CLASSES)))
def test_specifications_are_equal_exactly_to_those_of_their_class(kind):
    polynomials = [polynomial(text) for text in CLASSES[kind]]
    others = [polynomial(texts[0]) for number, texts in enumerate(CLASSES) if number != kind]
    assert len({*polynomials}) == 1
    assert not {*polynomials} & {*others}
    for text in CLASSES[kind][1:]:
        assert pa.prove(CLASSES[kind][0], text)
    for one, other in zip(CLASSES[kind], CLASSES[kind][2:], strict=False):
        assert pa.prove(one, other)
    assert_equivalence(polynomials)


def test_polynomials_of_one_function_add_up_however_their_sizes_are_split():
    one, other = (polynomial(f"x[N,C]; where C = {parts}; y[a,b] = x[a,b]") for parts in ("G*M", "H*K"))
    assert one + other == 2 * one
    assert one - other == 0 * one


def test_splits_that_do_not_count_leave_other_splits_to_the_question():
    left = "x[N,C]; where C = G*M; where N = H*W; y[(i j),b] = x[(i k),b]*u[k,j]"
    right = "x[N,C]; where C = M*G; where N = H*W; y[(i j),(m g)] = x[(i k),(m g)]*u[k,j]"
    verdict = pa.prove(left, right)
    assert verdict
    assert "where N = H*W" in verdict.left
    assert "where C" not in verdict.left + verdict.right
    with pytest.raises(ProofError, match=r"size C is G\*M by the left side, but M\*G by the right side"):
        pa.prove(left.replace("x[(i k),b]", "x[(i k),b]*v[g]*I[b,(g m)]*I[b,b]"), right.replace("*u", "*v[m]*u"))
