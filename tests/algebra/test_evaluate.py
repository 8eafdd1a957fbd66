"""The reference evaluation against loops over the indices, functions included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import BudgetError, SizeError, Spec, catalog
from polyattn.testing import size_assignments, specifications

from .arrays import agree, evaluated, tensors_of
from .loops import Loops

X = np.arange(6.0).reshape(3, 2) - 2


@given(st.data())
def test_evaluation_is_what_loops_over_the_indices_compute(data):
    spec = data.draw(specifications(max_indices=6))
    sizes = data.draw(size_assignments(spec, max_size=2))
    tensors = tensors_of(spec, sizes)
    assert agree(spec.evaluate(tensors, sizes), Loops(spec, tensors, sizes).output())


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_the_catalogue_is_what_loops_over_the_indices_compute(name):
    spec = catalog.get(name)
    sizes = {s: 1 + k % 2 for k, s in enumerate(spec.sizes.atomic)}
    tensors = tensors_of(spec, sizes)
    assert agree(spec.evaluate(tensors, sizes), Loops(spec, tensors, sizes).output())


FUNCTIONS = {
    "softmax[e](x[e,c])": np.exp(X) / np.exp(X).sum(0),
    "softmax[c](x[e,c])": np.exp(X) / np.exp(X).sum(1, keepdims=True),
    "softmax[e,c](x[e,c])": np.exp(X) / np.exp(X).sum(),
    "normalize[e](x[e,c])": X / np.abs(X).sum(0),
    "normalize[c](0*x[e,c])": np.zeros((3, 2)),
    "relu(x[e,c])": np.where(X > 0, X, 0),
    "sigmoid(x[e,c])": 1 / (1 + np.exp(-X)),
    "max[d](x[e,d] + I[c,c])": np.repeat(X.max(1, keepdims=True), 2, 1) + 1,
    "mean[d](x[e,d] + x[e,c])": X.mean(1, keepdims=True) + X,
}


@pytest.mark.parametrize("call", FUNCTIONS)
def test_each_function_by_its_definition(call):
    y = Spec(f"x[N,C]; y[e,c] = {call}").evaluate({"x": X})
    np.testing.assert_allclose(y, FUNCTIONS[call], atol=1e-12)


def test_functions_of_large_numbers_are_finite():
    y = Spec("x[N,C]; y[e,c] = softmax[e](x[e,c])").evaluate({"x": X + 1000})
    np.testing.assert_allclose(y, FUNCTIONS["softmax[e](x[e,c])"])
    y = Spec("x[N,C]; y[e,c] = sigmoid(x[e,c])").evaluate({"x": X * 1000})
    np.testing.assert_allclose(y, np.heaviside(X, 0.5))


def test_a_composite_slot_counts_its_outer_index_first():
    spec = Spec("x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]*w[g]")
    y = spec.evaluate({"x": np.ones((1, 6)), "w": [1, 2]})
    np.testing.assert_array_equal(y, [[1, 1, 1, 2, 2, 2]])


def test_scalars_and_lists_are_arrays_too():
    spec = Spec("x[N,C]; y[a,b] = alpha*x[a,b]*w[b]")
    np.testing.assert_array_equal(spec.evaluate({"x": X, "alpha": 2, "w": [1, 0]}), 2 * X * [1, 0])


def test_a_sum_without_tensors_fills_the_output():
    y = Spec("x[N,C]; y[a,b] = N/C*I[a,a]*I[b,b] + 0*x[a,b]").evaluate({"x": X})
    np.testing.assert_array_equal(y, np.full((3, 2), 1.5))


def test_an_output_without_slots_is_a_number():
    assert Spec("x[N,C]; y = x[a,b]").evaluate({"x": X}) == X.sum()


def test_complex_numbers_pass_through():
    y = Spec("x[N,C]; y[a,b] = x[a,c]*w[c,b]").evaluate({"x": 1j * X, "w": np.eye(2)})
    np.testing.assert_array_equal(y, 1j * X)


def test_the_expanded_form_of_a_softmax_on_its_diagonal():
    spec = Spec("x[N,C]; s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,a]*x[a,b]")
    similarity = np.exp(X @ X.T)
    by_hand = np.diag(similarity / similarity.sum(1, keepdims=True))[:, None] * X
    np.testing.assert_allclose(spec.evaluate({"x": X}), by_hand)
    assert agree(evaluated(spec.expanded(), {"N": 3, "C": 2}), evaluated(spec, {"N": 3, "C": 2}))


NL = catalog.nl()
W = np.ones((2, 2))


@pytest.mark.parametrize(
    ("tensors", "sizes", "message"),
    [
        ({"x": X}, {}, "missing tensors: wf, wg"),
        ({"x": X, "wf": W}, {}, "missing tensor: wg"),
        ({"x": X, "wf": W, "wg": W, "wh": W}, {}, "no tensor 'wh' .* it has x, wf, wg"),
        ({"x": X, "wf": W, "wg": np.ones((3, 2))}, {}, "size C is 2 by axis 1 of 'x', but 3 by axis 0 of 'wg'"),
        ({"x": X[0], "wf": W, "wg": W}, {}, r"'x' has 2 slots, but its array has shape \(2,\)"),
        ({"x": X, "wf": W, "wg": W}, {"N": 4}, "size N is 4 by the given sizes, but 3 by axis 0 of 'x'"),
        ({"x": X, "wf": W, "wg": W}, {"M": 4}, "unknown size 'M'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, sizes, message):
    with pytest.raises(SizeError, match=message):
        NL.evaluate(tensors, sizes)


def test_sizes_that_no_shape_tells_have_to_be_given():
    spec = Spec("x[N,C]; where C = G*M; y[a,(g m)] = 1/G * x[a,(g m)]")
    with pytest.raises(SizeError, match="missing sizes: G, M"):
        spec.evaluate({"x": np.ones((1, 6))})
    np.testing.assert_array_equal(spec.evaluate({"x": np.ones((1, 6))}, {"G": 2}), np.full((1, 6), 0.5))


def test_a_literal_size_is_checked():
    spec = Spec("x[N,3]; y[a,b] = x[a,b]")
    with pytest.raises(SizeError, match="axis 1 of 'x' must be 3 long, not 2"):
        spec.evaluate({"x": X})


def test_more_indices_than_letters_are_refused():
    product = "*".join(f"x[a{k},b{k}]" for k in range(30))
    with pytest.raises(BudgetError, match="at most 52 indices"):
        Spec(f"x[N,C]; y = {product}").evaluate({"x": X})
