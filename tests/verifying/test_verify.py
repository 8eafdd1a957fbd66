"""`verify`: right graphs pass at every level, wrong ones at none, and nothing is claimed that was not checked."""

import copy
from fractions import Fraction
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn import catalog
from polyattn.lowering import lower
from polyattn.testing import size_assignments, specifications
from polyattn.verifying import verify
from tests.drawing import share

from .wrong_graphs import GRAM, mutated, times

LEVELS = ("symbolic", "modular", "numeric")
SMALL = {"N": 2, "C": 2, "R": 2, "V": 2, "H": 2, "W": 2, "G": 2, "M": 1, "K": 1, "S": 2, "U": 1}
LARGE = {"N": 64, "C": 16, "R": 8, "V": 8, "H": 8, "W": 8, "G": 4, "M": 4, "K": 4, "S": 4, "U": 2}
ENTRIES = catalog.names("third_order")


def sizes_of(spec, numbers):
    sizes = {name: numbers[name] for name in spec.sizes.atomic}
    if "U" in sizes:  # blocks: H = S*U and W = S*V
        sizes["V"] = numbers["U"]
    return sizes


@pytest.mark.parametrize("objective", ["forward", "as_written", "training"])
@pytest.mark.parametrize("name", ENTRIES)
def test_every_catalogue_entry_is_its_interaction_tensor(name, objective):
    spec = catalog.get(name)
    found = verify(spec, sizes_of(spec, SMALL), objective=objective)
    assert found
    assert found.entries == 2 * prod(spec.sizes.solve(sizes_of(spec, SMALL))[n] for n in spec.output_shape)
    assert "the explicit interaction tensor of order" in str(found)


@pytest.mark.parametrize("name", [n for n in ENTRIES if n not in ("ba_transform", "ba_transform_block")])
def test_every_planned_backward_pass_is_the_formal_derivative(name):
    spec = catalog.get(name)
    found = verify(spec, sizes_of(spec, SMALL | {"R": 1, "V": 1, "G": 1, "M": 2}), derivative=True)
    assert found
    assert [c.tensor for c in found.checks] == ["y", *(f"d{t}" for t in (*spec.inputs, *spec.parameters))]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_catalogue_entry_holds_modulo_a_prime_at_64_positions_and_16_channels(name):
    spec = catalog.get(name)
    found = verify(spec, sizes_of(spec, LARGE), "modular", seed=0)
    assert found
    assert found.entries == 2 * 64 * 16
    assert found.bound is not None
    assert 0 < found.bound <= Fraction(1, 2**100)
    assert "a chance of at most 2^-1" in str(found)


@pytest.mark.parametrize("name", ["nl", "poly_nl", "tesa", "ba_transform_block"])
def test_planned_backward_passes_hold_modulo_a_prime(name):
    spec = catalog.get(name)
    assert verify(spec, sizes_of(spec, LARGE | {"R": 2, "K": 2}), "modular", derivative=True, seed=0)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_catalogue_entry_stays_within_its_rounding_bound(name):
    spec = catalog.get(name)
    sizes = sizes_of(spec, LARGE | {"N": 9, "C": 5, "H": 3, "W": 3, "S": 3})
    found = verify(spec, sizes, "numeric", dtypes=("float64", "float32", "float16", "bfloat16"), seed=0)
    assert found
    assert [c.manner for c in found.checks] == ["in float64", "in float32", "in float16", "in bfloat16"]
    double, single, *halves = [c.error for c in found.checks]
    assert 1e3 * double < single < min(halves)
    assert all(c.error <= c.bound < 1e5 * c.error for c in found.checks)


def test_gradients_stay_within_their_bounds_planned_and_by_autograd():
    found = verify(catalog.poly_nl(), {"N": 6, "C": 4}, "numeric", derivative=True, dtypes=("float64",), seed=0)
    assert found
    assert [(c.tensor, c.manner) for c in found.checks] == [
        *((t, "in float64") for t in ("y", "dx", "dw1", "dw2", "dw3")),
        *((t, "by autograd in float64") for t in ("dx", "dw1", "dw2", "dw3")),
    ]
    assert all(c.bound < 1e-9 for c in found.checks)


FUNCTIONS_OF_THE_LANGUAGE = [
    "y[a,b] = softmax[b](x[a,d]*w[d,b])",
    "f[a,b] = softmax[a,b](x[a,d]*w[d,b]); y[a,b] = f[a,b]*x[a,b]",
    "f[a,e] = normalize[e](x[a,d]*x[e,d]); y[a,b] = f[a,e]*x[e,b]",
    "f[b] = max[a](x[a,d]*w[d,b]); y[a,b] = f[b]*x[a,b]",
    "f[a,b] = relu(x[a,d]*w[d,b]); g[a] = sigmoid(f[a,b]); y[a,b] = f[a,b]*g[e]",
    "f[b] = mean[a](x[a,b]); y[a,b] = f[b]*x[a,b]",
]


@pytest.mark.parametrize("text", FUNCTIONS_OF_THE_LANGUAGE)
def test_functions_stay_within_their_rounding_bounds(text):
    assert verify(f"x[N,C]; {text}", {"N": 4, "C": 3}, "numeric", seed=0)


@share(1.2)
@given(st.data())
def test_generated_specifications_pass_at_every_level(data):
    spec = data.draw(specifications())
    sizes = data.draw(size_assignments(spec, max_size=2))
    objective = data.draw(st.sampled_from(["forward", "as_written", "training"]))
    if spec.is_polynomial:
        derivative = data.draw(st.booleans())
        assert verify(spec, sizes, "symbolic", objective=objective, derivative=derivative)
        assert verify(spec, sizes, "modular", objective=objective, derivative=derivative, seed=0)
    assert verify(spec, sizes, "numeric", objective=objective, seed=0)


def test_one_entry_that_overflows_is_refused():
    """The largest finite float16 is 65504; the exact value is 100 times a number of about 700."""
    text = "x[N]; y = 65000*x[a]*x[a]*x[b]*x[b]"
    found = verify(text, {"N": 9}, "numeric", dtypes=["float16"], seed=0)
    assert not found
    assert found.difference is not None
    assert found.difference.graph == "inf"


def test_entries_whose_error_has_no_bound_are_undecided_and_not_agreed():
    """The argument is 0 of two sigmoids, so rounding alone decides how it is normalized."""
    f = "f[a,b] = sigmoid(x[a,b]); g[a,b] = sigmoid(-x[a,b])"
    text = f"x[N,C]; {f}; y[a,b] = normalize[b](f[a,b] + g[a,b] - 1)"
    found = [verify(text, {"N": 3, "C": 2}, "numeric", dtypes=["bfloat16"], seed=seed) for seed in range(4)]
    unknown = [f for f in found if f.difference is None]
    assert unknown
    for verdict in unknown:
        assert not verdict
        assert str(verdict).startswith("undecided, numeric: ")
        assert f"{sum(c.undecided for c in verdict.checks)} more have no bound" in str(verdict)
        assert verdict.entries + sum(c.undecided for c in verdict.checks) == 12


def test_no_precision_is_refused():
    with pytest.raises(pa.ProofError, match="`dtypes` is empty"):
        verify(GRAM, {"N": 2, "C": 2}, "numeric", dtypes=[])


# The exact values of functions are enclosed.


@pytest.mark.parametrize("relative", [0, 1e-14, -1e-14])
def test_a_function_off_by_more_than_float64_rounds_is_refused(relative):
    graph = lower(pa.plan("x[N,C]; y[a,b] = softmax[b](x[a,d]*w[d,b])", {"N": 2, "C": 2}))
    found = verify(mutated(graph, times(1.0 + relative)), level="numeric", dtypes=["float64"], seed=0)
    assert bool(found) == (relative == 0)
    assert "against intervals of 30 digits" in str(found)


def test_values_of_functions_that_would_take_too_long_are_refused():
    with pytest.raises(pa.BudgetError, match="the exact values of functions take too long at these sizes"):
        verify("x[N]; f[a,b] = softmax[b](x[a]*x[b]); y[a] = f[a,b]*x[b]", {"N": 1500}, "numeric")


# Nothing is believed.


def test_a_rational_that_does_not_round_to_the_constant_is_not_believed():
    graph = copy.deepcopy(lower(pa.plan("x[N]; y[a] = 1/3*x[a]", {"N": 1})))
    (node,) = (n for n in graph.graph.nodes if "coefficient" in n.meta)
    assert verify(graph)
    node.args = (node.args[0], 1 / 3 + 2**-53)
    assert "by the graph, but 1/3*x[0,0] by the definition" in str(verify(graph))
    node.args = (node.args[0], 1 / 3)
    del node.meta["coefficient"]
    assert not verify(graph)


@pytest.mark.parametrize("level", LEVELS)
def test_an_unknown_operation_is_an_error_and_never_skipped(level):
    def cumulate(graph):
        output = next(n for n in graph.graph.nodes if n.op == "output")
        with graph.graph.inserting_before(output):
            output.args = (graph.graph.call_function(torch.cumsum, (output.args[0], 1)),)

    graph = mutated(lower(pa.plan(GRAM, {"N": 2, "C": 2})), cumulate)
    with pytest.raises(pa.ProofError, match="cumsum"):
        verify(graph, level=level)


@pytest.mark.parametrize("level", ["symbolic", "modular"])
def test_functions_have_no_exact_values(level):
    with pytest.raises(pa.NotPolynomialError, match=f'level="{level}" is for polynomials; level="numeric" checks it'):
        verify(catalog.nl(softmax=True), {"N": 2, "C": 2}, level)


def test_a_function_in_the_graph_of_a_polynomial_is_refused_too():
    def rectify(graph):
        output = next(n for n in graph.graph.nodes if n.op == "output")
        with graph.graph.inserting_before(output):
            output.args = (graph.graph.call_function(torch.relu, (output.args[0],)),)

    graph = mutated(lower(pa.plan(GRAM, {"N": 2, "C": 2})), rectify)
    with pytest.raises(pa.NotPolynomialError, match="the graph applies 'relu'"):
        verify(graph)
    assert not verify(graph, level="numeric", seed=0)


def test_gradients_of_functions_are_refused():
    with pytest.raises(pa.NotPolynomialError, match="gradients of functions"):
        verify(catalog.nl(softmax=True), {"N": 2, "C": 2}, "numeric", derivative=True)


def test_what_would_take_too_long_is_refused_before_it_runs():
    with pytest.raises(pa.BudgetError, match=r"the explicit tensor of shape 30 x 10 x .* 60.3 GiB"):
        verify(catalog.nl(), {"N": 30, "C": 10})
    with pytest.raises(pa.BudgetError, match="more than 2,000 products of monomials"):
        verify("x[N]; z[N]; y = x[a]*z[a]*x[b]*z[b]*x[c]*z[c]*x[d]*z[d]", {"N": 6}, budget=2000)
    with pytest.raises(pa.BudgetError, match="more than 100 products of monomials"):
        verify(catalog.nl(), {"N": 2, "C": 2}, budget=100)
    with pytest.raises(pa.BudgetError, match=r"takes [\d,]+ multiply-accumulates, in exact arithmetic one by one"):
        verify(catalog.nl(), {"N": 10**5, "C": 64}, "modular")
    assert verify(catalog.nl(), {"N": 8, "C": 2}, "modular", budget=1000, seed=0)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (torch.nn.Linear(2, 2), "not Linear"),
        (3, "not int"),
        (torch.fx.symbolic_trace(torch.nn.ReLU()), "was not made by polyattn.lower"),
    ],
)
def test_a_subject_that_says_nothing_is_refused(subject, message):
    with pytest.raises(pa.ProofError, match=message):
        verify(subject, {"N": 2})


def test_levels_and_precisions_have_names():
    with pytest.raises(pa.ProofError, match="unknown level 'exact'; there are symbolic, modular, numeric"):
        verify(GRAM, {"N": 2, "C": 2}, "exact")
    with pytest.raises(pa.ProofError, match="unknown precision 'int8'; there are float64, float32, float16, bfloat16"):
        verify(GRAM, {"N": 2, "C": 2}, "numeric", dtypes=["int8"])
    with pytest.raises(pa.SizeError, match="missing size: C"):
        verify(GRAM, {"N": 2})


def test_modules_plans_and_texts_are_subjects():
    layer = pa.nn.Attention(catalog.poly_nl(), channels=2)
    assert dict(verify(layer, {"N": 3}).sizes) == {"N": 3, "C": 2}
    assert "objective training" in str(verify(layer, {"N": 3}))
    plan = pa.plan(GRAM, {"B": 3, "N": 2, "C": 2}, "as_written")
    assert "objective as_written" in str(verify(plan))
    assert verify(plan, derivative=True)
    assert verify(GRAM, {"N": 2, "C": 2})


def test_of_a_layer_the_plan_that_it_runs_is_verified():
    layer = pa.nn.Attention(catalog.nl(), channels=4)
    sizes = {"N": 1000}
    found = verify(layer, sizes, "modular")
    assert found
    assert layer.running_plan(sizes, batch=2).strategy in str(found)
    assert "centred" in str(found)
    assert "centred" not in str(verify(layer.spec, {**sizes, "C": 4}, "modular", objective="training"))


def test_entries_that_no_product_reaches_leave_the_bounds_of_gradients_alone():
    found = verify("x[N,N]; y[a,b] = w[a,d]*x[a,d]*I[a,b]", {"N": 3}, "numeric", derivative=True)
    assert found
    graph = pa.lower(pa.plan("x[N,N]; y[a,b] = w[a,d]*x[a,d]*I[a,b]", {"N": 3}))
    wrong = next(n for n in graph.graph.nodes if "mul" in str(n.target))
    with graph.graph.inserting_after(wrong):
        more = graph.graph.call_function(torch.mul, (wrong, 1 + 1e-9))
    wrong.replace_all_uses_with(more, delete_user_cb=lambda n: n is not more)
    graph.recompile()
    assert not verify(graph, level="numeric", derivative=True)


def test_a_verification_prints_as_one_paragraph():
    found = verify("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,b]", {"N": 1, "C": 2}, "modular", seed=7)
    assert str(found) == (
        "yes, modular: the graph of y[a,b] = 1/N*x[a,d]*w[d,b] at C=2 N=1 (objective forward, as written), modulo a "
        "random prime of 128 bits at a random point, a batch of 2, against the expanded sum of products; a wrong "
        "graph would pass with a chance of at most 2^-121 (degree 2). Equal: 4 entries of y. The seed is 7."
    )


def test_a_seed_repeats_the_check_and_no_seed_is_a_fresh_one():
    plan = pa.plan(GRAM, {"N": 2, "C": 2})
    assert verify(plan, level="numeric", seed=5) == verify(plan, level="numeric", seed=5)
    assert verify(plan, level="numeric").seed != verify(plan, level="numeric").seed


def test_several_inputs_degrees_and_outputs_without_axes():
    text = "x[N,C]; z[K]; y = x[a,b]*u[b]*z[k]*z[k] + 3 - s*x[a,a1]*x[a,a1]"
    for level in LEVELS:
        assert verify(text, {"N": 2, "C": 2, "K": 2}, level, derivative=True, seed=0)
    assert "order 1 and 2 and 3" in str(verify("x[N]; y[a] = 2*v[a] + x[a] - x[a]*x[b]*u[b]", {"N": 2}))
    assert verify("x[N]; y[a] = x[a] - x[a]", {"N": 2})


def test_a_softmax_with_a_bias_is_verified():
    spec = "x[N,C]; bias[N,N]; p[a,e] = softmax[e](x[a,c]*x[e,c] + bias[a,e]); y[a,b] = p[a,e]*x[e,b]"
    assert pa.verify(spec, {"N": 3, "C": 2}, level="numeric")
