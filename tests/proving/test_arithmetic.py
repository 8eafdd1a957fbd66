"""Exact arithmetic and error analysis of a graph's operations: each does what torch does, and bounds hold."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.lowering import lower
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.lowering.shapes import condition, expect_shape, identity, refined_mean, summable, widened
from polyattn.proving.evaluation import EXACT, Arithmetic
from polyattn.testing import size_assignments, specifications
from polyattn.verifying.exact import FUNCTIONS, METHODS, run_exactly
from polyattn.verifying.modular import Height, graph_heights
from polyattn.verifying.rounding import RULES, SHAPES, Analysis, Rounded
from polyattn.verifying.symbols import Ring
from tests.drawing import share

GRAM = "x[N,C]; y[a,b] = 1/3*x[a,d]*wf[d,f]*x[e,f]*x[e,h]*wg[h,b] - 2*x[a,d]*wf[d,b]"

A, B = (3, 2, 4), (3, 4, 2)
PLACES = (("p", 5), ("i", 5), ("u", 3))
CASES = [
    (condition, (A, "<=", (1, -1), (3, 4), 1), {}),
    (condition, (A, "!=", (2,), (5,), -4), {}),
    (torch.matmul, (A, B), {}),
    (torch.matmul, ((4,), (4, 2)), {}),
    (torch.baddbmm, ((), A, B), {"beta": 0, "alpha": 0.5}),
    (torch.baddbmm, ((3, 2, 2), A, B), {"alpha": 3.0}),
    (torch.mul, (A, (4,)), {}),
    (torch.mul, (A, 0.25), {}),
    (torch.add, (A, (2, 1)), {"alpha": 2}),
    (torch.sub, (A, A), {"alpha": 0.5}),
    (torch.neg, (A,), {}),
    (torch.diagonal, ((3, 2, 3), 0, 0, 2), {}),
    ("double", (A,), {}),
    ("type_as", (A, (4,)), {}),
    (widened, (A,), {}),
    (summable, (A,), {}),
    (refined_mean, ((3, 2), (3, 4, 2), (1,)), {}),
    ("sum", (A, (0, 2)), {}),
    ("sum", (A, 1), {"keepdim": True}),
    ("sum", (A,), {}),
    ("sum", (A, ()), {}),
    ("mean", ((4, 2, 8), (0, 2)), {}),
    ("permute", (A, 2, 0, 1), {}),
    ("permute", (A, (2, 0, 1)), {}),
    ("movedim", (A, -1, 0), {}),
    ("movedim", (A, 0, 1), {}),
    ("clone", (A,), {"memory_format": torch.contiguous_format}),
    ("flatten", (A, 1, 2), {}),
    ("flatten", (A, 0, -1), {}),
    ("unflatten", (A, 2, (2, -1)), {}),
    ("unflatten", (A, -1, (2, 2)), {}),
    ("unsqueeze", (A, 1), {}),
    ("unsqueeze", (A, -1), {}),
    ("squeeze", ((3, 1, 2), 1), {}),
    ("squeeze", (A, 1), {}),
    ("expand", ((3, 1), 3, 5), {}),
    ("expand", ((3, 1), 2, -1, 4), {}),
    ("new_ones", (A, (2,)), {}),
    ("new_zeros", (A, ()), {}),
    (neighbourhood, ((5, 2), (3, 2, 4), "pc,ucb->ib", (("p", (("i", 1), ("u", 1)), -1),), PLACES), {}),
    (neighbourhood, ((5, 2), (3, 2), "pc,uc->ic", (("p", (("i", 2), ("u", 1)), 0),), PLACES), {}),
]


@pytest.mark.parametrize(("target", "arguments", "keywords"), CASES)
def test_an_operation_is_what_torch_does_in_exact_and_in_error_analysis(target, arguments, keywords):
    rng = np.random.default_rng(0)
    graph, tensors, args = torch.fx.Graph(), [], []
    shapes = (
        2 if target in (torch.matmul, torch.mul, torch.add, torch.sub, refined_mean, neighbourhood, "type_as") else 1
    )
    shapes = 3 if target is torch.baddbmm else shapes
    for k, argument in enumerate(arguments):
        if k < shapes and isinstance(argument, tuple):
            tensors.append(torch.tensor(rng.integers(-8, 9, argument), dtype=torch.float64))
            args.append(graph.placeholder(f"x{k}"))
        else:
            args.append(argument)
    make = graph.call_method if isinstance(target, str) else graph.call_function
    graph.output(make(target, tuple(args), keywords))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    want = module(*tensors)
    exact = run_exactly(module, [np.asarray(t.numpy().astype(int), dtype=object) for t in tensors], EXACT)
    np.testing.assert_array_equal(np.asarray(exact, dtype=float), want.numpy())
    (bounded,) = Analysis.of(torch.float64).outputs(module, [Rounded.exact(t) for t in tensors])
    np.testing.assert_array_equal(bounded.value.numpy(), want.numpy())
    assert bounded.error.shape == bounded.magnitude.shape == want.shape
    assert bool((bounded.error >= 0).all())


def test_every_operation_of_the_interpreter_has_a_case():
    tried = {target for target, _, _ in CASES}
    checked_elsewhere = {"size", expect_shape, identity}
    assert {*FUNCTIONS, *METHODS} == tried | checked_elsewhere
    names = {getattr(t, "__name__", t) for t in (*FUNCTIONS, *METHODS)}
    assert names <= {*RULES, *SHAPES}


def test_the_identity_and_the_batch_size_are_what_torch_makes():
    for text in ("x[N,N]; y[a,b] = x[a,b]*I[a,b]", "x[N,N]; y[a,b] = 2*I[a,b]"):
        graph = lower(pa.plan(text, {"N": 3}))
        x = np.arange(18).reshape(2, 3, 3)
        exact = run_exactly(graph, [x.astype(object)], EXACT)
        np.testing.assert_array_equal(np.asarray(exact, dtype=float), graph(torch.tensor(x, dtype=torch.float64)))


def test_the_interpreter_checks_shapes_as_the_graph_does():
    graph = lower(pa.plan(GRAM, {"N": 2, "C": 2}))
    with pytest.raises(pa.SizeError, match="'x' has shape"):
        run_exactly(graph, [np.ones((1, 3, 2), dtype=object), *[np.ones((2, 2), dtype=object)] * 2], EXACT)


# The arithmetic of the bounds.


@share(0.8)
@given(st.data())
def test_degree_and_height_bound_what_a_graph_computes(data):
    """What Schwartz-Zippel and the random prime rest on: checked on the polynomials themselves."""
    spec = data.draw(specifications(functions=False))
    sizes = data.draw(size_assignments(spec, max_size=2))
    graph = lower(pa.plan(spec, sizes))
    ring = Ring()
    tensors = [*spec.inputs, *spec.parameters]
    known = spec.sizes.solve(sizes)
    arrays = []
    for name in tensors:
        shape = [prod(int(a) if a.isdigit() else known[a] for a in atoms) for atoms in spec.shape(name)]
        arrays.append(ring.symbols(name, ([1] if name in spec.inputs else []) + shape))
    values = np.asarray(run_exactly(graph, arrays, Arithmetic(object, ring.number)), dtype=object)
    (height,) = graph_heights(graph, [Height(degree=1)] * len(tensors))
    for value in values.flat:
        terms = value.nonzero() if hasattr(value, "nonzero") else {0: value}
        common = np.lcm.reduce([Fraction(c).denominator for c in terms.values()] or [1])
        assert all(sum(ring.exponents(m).values()) <= height.degree for m in terms)
        assert sum(abs(c) * int(common) for c in terms.values()) <= 2**height.bits


def test_heights_add_and_multiply_as_polynomials_do():
    third, half = Height.constant(Fraction(2, 3)), Height.constant(Fraction(1, 2))
    assert (third + half).denominator == 6
    assert 2 ** (third + half).bits >= 7  # 2/3 + 1/2 = 7/6
    assert (third * half).denominator == 6
    assert 2 ** (third * half).bits >= 2
    assert (Height(degree=2) * Height(degree=3)).degree == 5
    assert (Height(degree=2) + Height(degree=3)).degree == 3


def test_symbols_multiply_differentiate_and_print_as_polynomials():
    ring = Ring()
    x, y = ring.symbol("x"), ring.symbol("y")
    square = (x + y) * (x - 2 * y)
    assert str(square) == "x**2 - x*y - 2*y**2"
    assert str(square.derivative(x)) == "2*x - y"
    assert str(square - square) == "0"
    assert str(Fraction(1, 3) * x - 1) == "-1 + 1/3*x"
    assert not (square - square).nonzero()


def test_a_rounding_bound_is_met_by_every_order_and_is_not_idle():
    """A sum of alternating numbers in float32: the bound holds, and is within a small factor of n u sum |x|."""
    graph = torch.fx.Graph()
    graph.output(graph.call_method("sum", (graph.placeholder("x"), 0)))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    x = torch.linspace(-1, 1, 1000, dtype=torch.float32)
    (found,) = Analysis.of(torch.float32).outputs(module, [Rounded.exact(x.double())])
    u = 2.0**-24
    assert abs(module(x).double() - x.double().sum()) <= found.error
    assert 999 * u * x.double().abs().sum() <= found.error <= 1010 * u * x.double().abs().sum()
