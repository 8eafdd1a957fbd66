"""What the strategies draw: the whole language, within the limits that were asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyattn.algebra import Spec
from polyattn.language import Specification
from polyattn.language.functions import RESERVED as FUNCTIONS
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import IDENTITY, Bracket, Call, Number, SizeRef
from polyattn.testing import edited, renamed, size_assignments, specification_texts, specifications

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "max_degree": st.integers(1, 4),
        "homogeneous": st.booleans(),
        "functions": st.booleans(),
        "splits": st.booleans(),
        "brackets": st.booleans(),
        "max_inputs": st.integers(1, 2),
        "max_intermediates": st.integers(0, 3),
        "max_indices": st.integers(3, 8),
        "max_monomials": st.integers(1, 10),
        "output_like_input": st.booleans(),
    },
)
ALWAYS_THE_SAME = settings(derandomize=True, max_examples=60)
"""For tests of what is drawn, which must not depend on luck."""
TENSOR = {"functions": False, "homogeneous": True, "max_inputs": 1, "output_like_input": True}
"""The options for what has an interaction tensor."""


def features(spec: Specification) -> set[str]:
    """The parts of the language that a specification uses."""
    found, tree = set(), spec.statements
    found |= {"two inputs"} if len(tree.inputs) > 1 else set()
    found |= {"an input with a number" for i in tree.inputs if any(map(str.isdigit, i.sizes))}
    found |= {"a split" if not any(map(str.isdigit, s.parts)) else "a split by a number" for s in tree.splits}
    found |= {"a nested split"} if len(tree.splits) > 1 else set()
    found |= {"a split into equal parts" for s in tree.splits if len(set(s.parts)) < len(s.parts)}
    found |= {f"where r : {'2' if d.size.isdigit() else 'R'}" for d in tree.index_sizes}
    found |= {f"{min(len(tree.definitions), 3)} definitions"}
    found |= {"a scalar output"} if not spec.output_shape else set()
    found |= {"an output unlike the input"} if spec.output_shape != tree.inputs[0].sizes else set()
    for definition in tree.definitions:
        on_left, body = set(definition.target.indices), definition.body
        total = body.argument if isinstance(body, Call) else body
        found |= {body.function} if isinstance(body, Call) else {"no function"}
        found |= {"a scalar intermediate"} if not on_left and definition.name != spec.output else set()
        found |= {"a composite slot on the left" for s in definition.target.slots if len(s.indices) > 1}
        found |= features_of_accesses(spec, definition)
        for term in total.terms:
            found |= {"a minus"} if term.negative else {"a plus"}
            found |= {"a term that lacks an index of the left"} if on_left - indices_of(term) else set()
            found |= {"a bracket" for f in term.factors if isinstance(f, Bracket)}
            found |= {"a bracket in a bracket" for f in term.factors if isinstance(f, Bracket) and "(" in str(f.body)}
            for factor, divide in zip(term.factors, term.divides, strict=True):
                kind = {Number: "a number", SizeRef: "a size"}.get(type(factor))
                found |= {f"{kind} after /" if divide else kind} if kind else set()
    return found


def features_of_accesses(spec: Specification, definition) -> set[str]:
    found: set[str] = set()
    accesses = list(accesses_of(definition.body))
    for access in accesses:
        found |= {"the identity"} if access.tensor == IDENTITY else set()
        found |= {"a scalar parameter"} if spec.parameters.get(access.tensor) == () else set()
        repeats = len(set(access.indices)) < len(access.indices)
        found |= {"a repeated index of an input"} if repeats and access.tensor in spec.inputs else set()
        found |= {
            "a composite slot of an input" for s in access.slots if len(s.indices) > 1 and access.tensor in spec.inputs
        }
    ways = {(a.tensor, k, len(s.indices)) for a in accesses for k, s in enumerate(a.slots)}
    found |= {"both ways to write a slot"} if len({way[:2] for way in ways}) < len(ways) else set()
    found |= {
        "a parameter used twice"
        for a in accesses
        if accesses.count(a) == 1
        for b in accesses
        if a.tensor == b.tensor in spec.parameters and a != b
    }
    return found


def indices_of(term) -> set[str]:
    found: set[str] = set()
    for factor in term.factors:
        if isinstance(factor, Bracket):
            found |= {i for inner in factor.body.terms for i in indices_of(inner)}
        else:
            found |= set(getattr(factor, "indices", ()))
    return found


ALL_FEATURES = {
    *FUNCTIONS,
    *("no function", "two inputs", "an input with a number", "a split", "a split by a number", "a nested split"),
    *("a split into equal parts", "where r : R", "where r : 2", "1 definitions", "2 definitions", "3 definitions"),
    *("a scalar output", "an output unlike the input", "a scalar intermediate", "a composite slot on the left"),
    *("a composite slot of an input", "both ways to write a slot", "a repeated index of an input", "the identity"),
    *("a scalar parameter", "a parameter used twice", "a minus", "a plus", "a term that lacks an index of the left"),
    *("a bracket", "a bracket in a bracket", "a number", "a number after /", "a size", "a size after /"),
}


def test_all_of_the_language_is_drawn():
    found: set[str] = set()

    @settings(ALWAYS_THE_SAME, max_examples=200)
    @given(specification_texts())
    def collect(text):
        found.update(features(Specification(text)))

    collect()
    assert found == ALL_FEATURES


@given(st.data())
def test_options_are_kept(data):
    options = data.draw(OPTIONS)
    spec = Spec(data.draw(specification_texts(**options)))
    limits = {"max_degree": 3, "max_intermediates": 2, "max_indices": 7, "max_monomials": 8, "max_inputs": 2} | options
    expansion = spec.expansion()
    assert len(expansion.terms) <= limits["max_monomials"]
    for monomial in expansion.terms:
        assert len({i for f in monomial.factors for i in f.indices} | set(expansion.output)) <= limits["max_indices"]
    assert len(spec.statements.definitions) <= limits["max_intermediates"] + 1
    assert len(spec.inputs) <= limits["max_inputs"]
    if not options.get("functions", True):
        assert "no function" in (used := features(spec))
        assert used.isdisjoint(FUNCTIONS)
        assert all(degree_of(m, spec) <= limits["max_degree"] for m in expansion.terms)
    if not options.get("splits", True):
        assert not spec.statements.splits
    if not options.get("brackets", True):
        assert not {"a bracket"} & features(spec)
    if options.get("output_like_input"):
        assert spec.output_shape == spec.statements.inputs[0].sizes


def degree_of(monomial, spec: Spec) -> int:
    return sum(getattr(factor, "tensor", None) in spec.inputs for factor in monomial.factors)


@given(specification_texts(**TENSOR))
def test_homogeneous_specifications_have_one_degree(text):
    spec = Spec(text)
    degrees = {degree_of(monomial, spec) for monomial in spec.expansion().terms}
    assert len(degrees) == 1
    assert degrees.pop() >= 1


@given(st.data())
def test_renaming_gives_an_equal_polynomial(data):
    spec = data.draw(specifications())
    assert Spec(data.draw(renamed(str(spec)))).polynomial() == spec.polynomial()


def test_renaming_changes_names_and_order():
    text = "x[N,C]\nwhere r : R\ny[a,b] = x[a,d]*w[d,r]/N*v[r,b] - (x[a,b] + s)"
    seen: set[str] = set()

    @ALWAYS_THE_SAME
    @given(renamed(text))
    def collect(other):
        seen.add(other)

    collect()
    firsts = {str(Specification(t).statements.definitions[0].body.terms[0].factors[0])[:1] for t in seen}
    assert len({Specification(t).statements.index_sizes[0].index for t in seen}) > 3
    assert firsts >= set("xwv(")
    assert {Specification(t).parameters["w"] for t in seen} == {("C", "R")}


@given(st.data())
def test_an_edit_changes_one_thing(data):
    text = data.draw(specification_texts())
    before, after = Specification(text).statements, Specification(data.draw(edited(text))).statements
    assert before != after
    assert (before.inputs, before.splits, before.index_sizes) == (after.inputs, after.splits, after.index_sizes)
    assert sum(a != b for a, b in zip(before.definitions, after.definitions, strict=True)) == 1


def test_edits_reach_indices_signs_and_coefficients():
    text = "x[N,N]\ny[a,b] = x[a,d]*x[d,b] - x[a,b]"
    seen: set[str] = set()

    @ALWAYS_THE_SAME
    @given(edited(text))
    def collect(other):
        seen.add(other.split("\n")[1])

    collect()
    assert {"y[a,b] = x[a,d]*x[d,b] + x[a,b]", "y[a,b] = 2*x[a,d]*x[d,b] - x[a,b]"} <= seen
    assert {"y[a,b] = x[a,d]*x[d,b]/N - x[a,b]", "y[a,b] = x[a,d]*x[a,b] - x[a,b]"} <= seen


@pytest.mark.parametrize("most", [1, 3])
def test_numbers_for_sizes_are_small_and_fix_everything(most):
    spec = Specification("x[N,C]; where C = 2*M; where M = S*T; where r : R; y[n] = x[n,c]*w[c,r]")
    seen: set[int] = set()

    @ALWAYS_THE_SAME
    @given(size_assignments(spec, max_size=most))
    def collect(numbers):
        assert sorted(numbers) == ["N", "R", "S", "T"]
        assert spec.sizes.solve(numbers, needed="NCMSTR")
        seen.update(numbers.values())

    collect()
    assert seen == set(range(1, most + 1))


@given(specifications(**TENSOR, max_indices=5, max_monomials=4))
def test_specifications_are_specs(spec):
    assert type(spec) is Spec
    assert spec.is_polynomial
