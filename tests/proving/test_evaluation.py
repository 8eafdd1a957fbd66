"""The three arithmetics against loops over all values of all indices."""

from fractions import Fraction
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.algebra import Spec
from polyattn.errors import BudgetError
from polyattn.proving.evaluation import EXACT, FLOATING, PRIME, Point, evaluate, modular
from polyattn.testing import size_assignments, specifications


def loops(expansion, point):
    """The output by the definition of a sum of products."""
    found = {}
    for term in expansion.terms:
        indices = list(dict.fromkeys((*expansion.output, *term.indices())))
        scale = term.coefficient * prod(Fraction(point.sizes[s]) ** e for s, e in term.powers)
        for values in product(*(range(point.length(i)) for i in indices)):
            at = dict(zip(indices, values, strict=True))
            value = scale
            for factor in term.factors:
                place = tuple(at[i] for i in factor.indices)
                value *= int(place[0] == place[1]) if factor.tensor == "I" else int(point.tensors[factor.tensor][place])
            key = values[: len(expansion.output)]
            found[key] = found.get(key, 0) + value
    return found


def point_of(spec, sizes, seed):
    generator = np.random.default_rng(seed)
    shapes = {
        t: [sizes.get(a) or int(a) for slot in spec.shape(t) for a in slot] for t in (*spec.inputs, *spec.parameters)
    }
    return Point(sizes, {t: generator.integers(-3, 4, size=shape).astype(object) for t, shape in shapes.items()})


@given(st.data())
def test_exact_evaluation_is_the_sum_over_all_indices(data):
    spec = data.draw(specifications(functions=False, max_indices=5, max_monomials=4))
    point = point_of(spec, data.draw(size_assignments(spec, max_size=2)), data.draw(st.integers(0, 99)))
    expansion = spec.expansion()
    exact = evaluate(expansion.terms, expansion.output, point, EXACT)
    wanted = loops(expansion, point)
    assert all(exact[key] == value for key, value in wanted.items())
    floats = Point(point.sizes, {t: np.asarray(a, dtype=float) for t, a in point.tensors.items()})
    np.testing.assert_allclose(
        evaluate(expansion.terms, expansion.output, floats, FLOATING), np.asarray(exact, dtype=float)
    )
    residues = Point(point.sizes, {t: np.asarray(a % PRIME, dtype=np.int64) for t, a in point.tensors.items()})
    residue = evaluate(expansion.terms, expansion.output, residues, modular(PRIME))
    for key, value in wanted.items():
        value = Fraction(value)
        assert residue[key] == value.numerator * pow(value.denominator, -1, PRIME) % PRIME


@pytest.mark.parametrize(
    ("text", "x", "wanted"),
    [
        ("f[a] = relu(x[a] - x[b]/3); y[a] = f[a]", [1, 2, 3], [0, 0, 1]),
        ("f[a] = normalize[a](x[a]); y[a] = f[a]", [1, -2, 3], [Fraction(1, 6), Fraction(-1, 3), Fraction(1, 2)]),
        ("f = max[a](x[a]); y[a] = f*x[a]", [1, -2, 3], [3, -6, 9]),
        ("f[a] = normalize[a](0*x[a]); y[a] = f[a]", [1, -2, 3], [0, 0, 0]),
    ],
)
def test_rational_functions_are_exact(text, x, wanted):
    expansion = Spec(f"x[N]; {text}").expansion()
    point = Point({"N": 3}, {"x": np.array(x, dtype=object)})
    assert list(evaluate(expansion.terms, expansion.output, point, EXACT)) == wanted


@pytest.mark.parametrize("function", ["softmax[b]", "sigmoid", "normalize[b]", "relu"])
def test_functions_in_floating_point_are_those_of_the_reference(function):
    spec = Spec(f"x[N,C]; f[a,b] = {function}(x[a,c]*w[c,b]); y[a,b] = f[a,b]*x[a,b]")
    generator = np.random.default_rng(0)
    tensors = {"x": generator.normal(size=(3, 2)), "w": generator.normal(size=(2, 2))}
    expansion = spec.expansion()
    mine = evaluate(expansion.terms, expansion.output, Point({"N": 3, "C": 2}, tensors), FLOATING)
    np.testing.assert_allclose(mine, spec.evaluate(tensors))


def test_an_array_that_would_not_fit_is_refused():
    expansion = Spec("x[N,N,N,N]; y[a,b,c,d] = x[a,b,c,d]").expansion()
    with pytest.raises(BudgetError, match="the limit is"):
        evaluate(expansion.terms, expansion.output, Point({"N": 100}, {"x": np.zeros((1, 1, 1, 1))}), FLOATING)
