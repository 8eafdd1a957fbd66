"""Polynomials as values: a vector space over the rationals, equality and hashes, degrees, printing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Polynomial, SizeError, Spec, SpecError, catalog
from polyattn.language.syntax import Split
from polyattn.testing import edited, renamed, specification_texts, specifications

from .arrays import agree, evaluated, tensors_of

NUMBERS = st.fractions(-3, 3, max_denominator=6)


def polynomial(text: str) -> Polynomial:
    return Spec(text).polynomial()


@st.composite
def pairs(draw) -> tuple[Polynomial, Polynomial]:
    """Two polynomials in the same tensors."""
    text = draw(specification_texts())
    spec, other = Spec(text), Spec(draw(edited(text)))
    same = {**spec.inputs, **spec.parameters} == {**other.inputs, **other.parameters}
    return spec.polynomial(), (other if same and spec.output_shape == other.output_shape else spec).polynomial()


@given(pairs(), NUMBERS, NUMBERS)
def test_polynomials_are_a_vector_space(pair, k, m):
    p, q = pair
    assert p + q == q + p
    assert (p + q) + p == p + (q + p)
    assert (p + q) - q == p
    assert (k + m) * p == k * p + m * p
    assert k * (p + q) == p * k + q * k
    assert k * (m * p) == (k * m) * p
    assert p == 1 * p == (-1) * -p
    assert 0 * p == p - p


@given(specifications())
def test_a_polynomial_minus_itself_is_zero_and_false(spec):
    p = spec.polynomial()
    zero = p - p
    assert not zero
    assert zero.terms == ()
    assert zero.degrees == ()
    assert zero.degree == 0
    assert str(zero) == f"{spec.output} = 0"
    assert zero.latex()
    assert (p == zero) == (not p)


@given(specifications())
def test_the_expanded_text_says_the_polynomial(spec):
    p = spec.polynomial()
    if not p:
        with pytest.raises(SpecError, match="is zero"):
            spec.expanded()
        return
    expanded = spec.expanded()
    assert expanded.polynomial() == p
    assert Spec(str(expanded)) == expanded
    assert expanded.polynomial().terms == p.terms
    assert hash(expanded.polynomial()) == hash(p)
    assert expanded.is_polynomial == p.is_polynomial


@given(specifications(), st.integers(2, 3))
def test_the_expanded_text_evaluates_as_the_text(spec, number):
    if spec.polynomial():
        sizes = dict.fromkeys(spec.sizes.atomic, number)
        assert agree(evaluated(spec.expanded(), sizes), evaluated(spec, sizes))


@given(specifications(), st.sampled_from([("P", "Q"), ("2", "Q"), ("Q", "Q")]))
def test_a_polynomial_over_split_sizes_is_the_one_over_whole_sizes(spec, parts):
    whole, size = spec.polynomial(), next(iter(spec.sizes.atomic), "N")
    split = whole.refined((Split(size, parts),))
    assert split == whole
    assert hash(split) == hash(whole)
    assert split - whole == 0 * split
    assert split.degrees == whole.degrees
    assert size not in {index.size for term in split.terms for index in term.all_indices()}


@given(st.data())
def test_equal_polynomials_have_equal_hashes(data):
    text = data.draw(specification_texts())
    written_otherwise = Spec(data.draw(renamed(text))).polynomial()
    assert {polynomial(text), written_otherwise, 2 * polynomial(text) * Fraction(1, 2)} == {written_otherwise}


@given(specifications())
def test_latex_and_text_are_never_empty(spec):
    p = spec.polynomial()
    assert p.latex().strip("$ ")
    assert p._repr_latex_().startswith("$")
    assert str(p).startswith(spec.output)
    assert repr(p) == f"<Polynomial {p}>"
    assert p.latex().count("{") == p.latex().count("}")


@given(specifications(homogeneous=True, functions=False))
def test_a_homogeneous_specification_has_one_degree_which_doubling_the_inputs_shows(spec):
    if spec.polynomial():
        (degree,) = spec.polynomial().degrees
        assert degree == spec.polynomial().degree == spec.degree
        sizes = dict.fromkeys(spec.sizes.atomic, 2)
        tensors = tensors_of(spec, sizes)
        doubled = tensors | {name: 2 * tensors[name] for name in spec.inputs}
        assert agree(spec.evaluate(doubled, sizes), 2**degree * spec.evaluate(tensors, sizes))


def test_degrees_count_inputs_and_functions_of_inputs():
    text = "x[N,C]; f[a] = relu(x[a,d]*x[a,d]*w[d]); g = sigmoid(v); y[a,b] = f[a]*x[a,b] + x[a,b] + u[b]*g"
    p = polynomial(text)
    assert p.degrees == (0, 1, 2)
    assert p.degree == 2
    assert not p.is_polynomial
    assert p.tensors == ("u", "v", "w", "x")


def test_several_inputs_all_count():
    assert polynomial("x[N,C]; z[N]; y[a,b] = z[a]*x[a,b]*w[b]").degree == 2


def test_like_terms_are_collected_and_opposite_ones_gone():
    p = polynomial("x[N,C]; y[a,b] = x[a,b] + 0.5*x[a,b] - x[a,c]*w[c,b] + w[d,b]*x[a,d]")
    assert [term.coefficient for term in p.terms] == [Fraction(3, 2)]


def test_equality_is_at_every_size_and_not_at_one():
    """At N = 1 these are one function."""
    one, other = Spec("x[N,C]; y[a,b] = x[a,b]"), Spec("x[N,C]; y[a,b] = 1/N * x[e,b]*I[a,a]")
    assert agree(evaluated(one, {"N": 1, "C": 2}), evaluated(other, {"N": 1, "C": 2}))
    assert one.polynomial() != other.polynomial()


def test_a_polynomial_is_not_equal_to_what_is_none():
    p = catalog.nl().polynomial()
    assert p != "nl"
    assert p != 0
    with pytest.raises(TypeError):
        p + 1
    with pytest.raises(TypeError):
        p - 1
    with pytest.raises(TypeError):
        p * 0.5


def test_outputs_of_different_shapes_do_not_add():
    with pytest.raises(SizeError, match=r"y\[N,C\] and y\[C,N\]"):
        polynomial("x[N,C]; y[a,b] = x[a,b]") + polynomial("x[N,C]; where b : C; y[b,a] = x[a,b]")


def test_tensors_of_different_shapes_do_not_mix():
    one, other = polynomial("x[N,C]; y[a,b] = x[a,b]*w[b]"), polynomial("x[N,C]; y[a,b] = x[a,b]*w[a]")
    assert one != other
    with pytest.raises(SizeError, match="'w' has different shapes"):
        one + other


def test_different_splits_of_one_size_do_not_mix():
    one = polynomial("x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]*u[g]")
    other = polynomial("x[N,C]; where C = M*G; y[a,(m g)] = x[a,(m g)]*u[g]")
    assert one != other
    with pytest.raises(SizeError, match="split"):
        one + other


RELATED = [
    ("where C = G*M", "where r : G; where s : M; y[a,b] = x[a,b]*u[r]*v[s]*C"),
    ("where C = G*M; where D = M*G", "where r : D; y[a,b] = x[a,b]*u[r]*C/D"),
    ("where C = 2*3", "y[a,b] = C*x[a,b]"),
]


@pytest.mark.parametrize(("split", "text"), RELATED)
def test_sizes_that_only_one_side_relates_are_not_comparable(split, text):
    related, independent = polynomial(f"x[N,C]; {split}; {text}"), polynomial(f"x[N,C]; {text}")
    assert related != independent
    with pytest.raises(SizeError, match="independent on the other"):
        related - independent


def test_a_split_into_a_part_that_is_there_already_is_comparable():
    text = "where r : G; y[a,b] = x[a,b]*u[r]/G"
    related, independent = polynomial(f"x[N,C]; where C = G*M; {text}"), polynomial(f"x[N,C]; {text}")
    assert related == independent
    assert hash(related) == hash(independent)


def test_splitting_turns_a_size_in_a_coefficient_into_its_parts():
    whole = polynomial("x[N,C]; y[a,b] = 1/C * x[a,b]")
    split = polynomial("x[N,C]; where C = 4*M; y[a,b] = 1/4/M * x[a,b]")
    assert whole == split
    assert hash(whole) == hash(split)
    assert whole != 2 * split


def test_a_polynomial_substitutes_as_its_specification_does():
    given_ = ("wf[d,f] = wq[d,r]*wk[f,r]", "r : R")
    assert catalog.nl().polynomial().substitute(*given_) == catalog.nl().substitute(*given_).polynomial()


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("x[N,C]; y[a,b] = 1.5*x[a,b]", "y[n,c] = 3/2*x[n,c]"),
        ("x[N,C]; y[a,b] = -N/C/C*x[a,b] + 2*N", "y[n,c] = -N/C/C*x[n,c] + 2*N"),
        ("x[N,C]; y[a,b] = x[a,b] - x[a,b] + x[e,b]", "y[n,c] = x[n1,c]*I[n,n]"),
        ("x[N,C]; y[a,b] = x[a,b] - x[a,b] + 2", "y[n,c] = 2*I[n,n]*I[c,c]"),
        ("x[N,C]; y[b,a] = I[a,e]*x[e,b]", "y[c,n] = x[n,c]"),
    ],
)
def test_the_printed_form(text, printed):
    assert str(polynomial(text)) == printed


def test_a_function_of_nothing_but_cancelled_terms_prints_and_parses_back():
    spec = Spec("x[N,C]; f[a,e] = softmax[e](x[a,d]*x[e,d] - x[e,d]*x[a,d]); y[a,b] = f[a,e]*x[e,b]")
    assert Spec(str(spec.expanded())).polynomial() == spec.polynomial()
    assert agree(evaluated(spec.expanded(), {"N": 3, "C": 2}), evaluated(spec, {"N": 3, "C": 2}))


def test_names_of_printed_functions_and_indices_never_meet():
    spec = Spec("x[F,F]; m = max[a,b](x[a,b]); f1[a] = relu(x[a,b]*w[b]); y[a,b] = m*f1[a]*x[a,c]*x[c,b]")
    assert Spec(str(spec.expanded())).polynomial() == spec.polynomial()


def test_a_size_that_is_only_a_coefficient_is_declared():
    spec = Spec("x[N,C]; where r : R; where s : S; f[a] = relu(x[a,b]/S); y[a,b] = 1/R*x[a,b]*f[a]")
    expanded = spec.expanded()
    assert {"R", "S"} <= set(expanded.sizes.names)
    assert Spec(str(expanded)).polynomial() == spec.polynomial()
