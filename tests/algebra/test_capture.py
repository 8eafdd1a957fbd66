"""Indices that identities and functions bind: nothing may be captured, and equal forms must meet."""

import numpy as np
import pytest

from polyattn.algebra import Spec

DIAGONAL_OF_SOFTMAX = "x[N,C]; f[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = f[a,a]*x[a,b]"
SOFTMAX_OF_DIAGONAL = "x[N,C]; f[a] = softmax[a](x[a,d]*x[a,d]); y[a,b] = f[a]*x[a,b]"


def test_a_softmax_read_on_its_diagonal_is_not_the_softmax_of_the_diagonal():
    read, taken = Spec(DIAGONAL_OF_SOFTMAX), Spec(SOFTMAX_OF_DIAGONAL)
    x = np.random.default_rng(0).normal(size=(3, 2))
    assert not np.allclose(read.evaluate({"x": x}), taken.evaluate({"x": x}))
    assert read.polynomial() != taken.polynomial()


@pytest.mark.parametrize(
    "wrapped",
    [
        "f[a,e] = softmax[e](x[a,d]*x[e,d]); g[a,e] = relu(f[a,e]); y[a,b] = g[a,a]*x[a,b]",
        "f[a,e] = softmax[e](x[a,d]*x[e,d]); g[a,e] = relu(f[a,e]*I[a,c]); y[a,b] = I[a,e]*g[a,e]*x[a,b]",
    ],
)
def test_an_expanded_text_of_a_diagonal_evaluates_to_the_same(wrapped):
    spec = Spec(f"x[N,C]; {wrapped}")
    x = np.random.default_rng(0).normal(size=(3, 2))
    np.testing.assert_allclose(spec.expanded().evaluate({"x": x}), spec.evaluate({"x": x}))
    assert spec.expanded().polynomial() == spec.polynomial()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y[a,b] = I[a,b]*x[a,c]*x[c,b]", "y[a,b] = I[a,b]*x[b,c]*x[c,b]"),
        ("y[a,b,c] = I[a,b]*I[b,c]*x[b,d]", "y[a,b,c] = I[c,b]*I[a,c]*I[b,a]*x[c,d]"),
        ("f[a,e] = softmax[e](x[a,e]); y[a] = f[a,a]", "f[a,e] = softmax[e](x[a,e]); y[a] = f[e,a]*I[a,e]"),
        ("f[a,e] = relu(x[a,c] + x[e,c] - x[e,c]); y[a] = f[a,e]", "f[a] = relu(x[a,c]); y[a] = N*f[a]"),
    ],
)
def test_forms_that_identities_make_equal_are_one_polynomial(one, other):
    assert Spec(f"x[N,N]; {one}").polynomial() == Spec(f"x[N,N]; {other}").polynomial()


@pytest.mark.parametrize("over", ["b,c", "c,b"])
@pytest.mark.parametrize("diagonal", ["x[b,b]", "x[c,c]", "x[b,c]", "x[c,b]", "x[b,d]*I[d,c]"])
def test_an_identity_inside_a_function_prefers_neither_of_its_indices(over, diagonal):
    one = Spec("x[N,N]; y[b,c] = softmax[b,c](x[b,b]*I[b,c])")
    other = Spec(f"x[N,N]; f[b,c] = softmax[{over}](I[c,b]*{diagonal}); y[a,e] = f[e,a]")
    assert one.polynomial() == other.polynomial() == one.expanded().polynomial()
