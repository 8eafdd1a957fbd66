"""`verify` refuses wrong graphs at every level, whichever pass they are in, and shows the difference."""

import pytest
import torch

import polyattn as pa
from polyattn.lowering import lower, lower_backward
from polyattn.verifying import verify
from polyattn.verifying.verification import Difference

from .wrong_graphs import (
    GRAM,
    MUTATIONS,
    change_a_constant,
    exchange_operands,
    give_up_a_sample,
    mutated,
    nodes_of,
    swap_permuted_axes,
    times,
)

LEVELS = ("symbolic", "modular", "numeric")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_graph_is_refused_at_every_level(mutation, level):
    graph = lower(pa.plan(GRAM, {"N": 2, "C": 2}, "as_written"))
    assert verify(graph, level=level, seed=0)
    found = verify(mutated(graph, mutation), level=level, seed=0)
    assert not found
    assert found.difference is not None
    assert found.difference.graph != found.difference.definition
    assert str(found).startswith(f"no, {level}: ")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mutation", [exchange_operands, change_a_constant, swap_permuted_axes])
def test_a_wrong_backward_pass_is_refused_at_every_level(mutation, level):
    graph = lower_backward(pa.plan(GRAM, {"N": 2, "C": 2}, "training"))
    assert verify(graph, level=level, seed=0)
    assert not verify(mutated(graph, mutation), level=level, seed=0)


@pytest.mark.parametrize("level", ["symbolic", "modular"])
def test_a_graph_that_cannot_run_is_refused(level):
    graph = lower(pa.plan(GRAM, {"N": 2, "C": 3}, "as_written"))
    found = verify(mutated(graph, exchange_operands), level=level)
    assert not found
    assert "the graph cannot run" in str(found)


def test_a_graph_of_another_output_shape_is_refused():
    def drop_the_last_entry(graph):
        output = next(n for n in graph.graph.nodes if n.op == "output")
        with graph.graph.inserting_before(output):
            output.args = (graph.graph.call_method("sum", (output.args[0], 2)),)

    graph = mutated(lower(pa.plan(GRAM, {"N": 2, "C": 2})), drop_the_last_entry)
    for level in LEVELS:
        assert "has shape (2, 2), not (2, 2, 2)" in str(verify(graph, level=level))


def test_the_first_difference_is_shown_with_both_values():
    graph = lower(pa.plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 1, "C": 2}))
    wrong = mutated(graph, lambda g: nodes_of(g, torch.matmul)[0].update_arg(1, nodes_of(g, torch.matmul)[0].args[0]))
    assert not verify(wrong)

    def transpose_the_weight(g):
        (node,) = nodes_of(g, torch.matmul)
        with g.graph.inserting_before(node):
            node.args = (node.args[0], g.graph.call_method("permute", (node.args[1], 1, 0)))

    found = verify(mutated(graph, transpose_the_weight))
    assert found.difference == Difference(
        "y",
        (0, 0, 0),
        "x[0,0,0]*w[0,0] + x[0,0,1]*w[0,1]",
        "x[0,0,0]*w[0,0] + x[0,0,1]*w[1,0]",
        4,
    )
    assert "; 4 differ in all" in str(found)


# A given graph is the one that is checked.


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mutation", [*MUTATIONS, give_up_a_sample])
@pytest.mark.parametrize("objective", ["as_written", "training"])
def test_a_wrong_forward_graph_is_refused_also_where_gradients_are_asked_for(objective, mutation, level):
    if objective == "training" and mutation is swap_permuted_axes:
        return  # this plan permutes nothing
    graph = lower(pa.plan(GRAM, {"N": 2, "C": 2}, objective))
    assert verify(graph, level=level, derivative=True, seed=0)
    found = verify(mutated(graph, mutation), level=level, derivative=True, seed=0)
    assert not found
    wrong = {(c.tensor, c.manner.removesuffix(" in float64")) for c in found.checks if not c}
    given = {("y", "by the given graph")}
    assert given <= wrong | {(t, m.partition(" in ")[0]) for t, m in wrong}
    assert all("given graph" in manner for _, manner in wrong)


def test_autograd_goes_through_the_given_graph():
    graph = mutated(lower(pa.plan(GRAM, {"N": 2, "C": 2})), times(1.5))
    found = verify(graph, level="numeric", derivative=True, seed=0, dtypes=["float64"])
    wrong = {c.tensor for c in found.checks if not c and c.manner == "by autograd through the given graph in float64"}
    assert wrong == {"dx", "dwf", "dwg"}


@pytest.mark.parametrize("level", LEVELS)
def test_a_verdict_says_which_graph_each_check_is_of(level):
    planned = pa.plan(GRAM, {"N": 2, "C": 2}, "training")
    manners = {c.manner.partition(" in ")[0] for c in verify(lower(planned), level=level, derivative=True).checks}
    autograd = {"by autograd through the given graph"} if level == "numeric" else set()
    passes = {"by the plan's forward pass", "by the plan's backward pass"}
    assert manners == {"by the given graph", *passes, *autograd}
    assert "the given graph, beside the plan's forward and backward pass" in str(
        verify(lower(planned), level=level, derivative=True)
    )
    found = verify(lower_backward(planned), level=level)
    assert ("dx", "by the given backward graph") in {(c.tensor, c.manner.partition(" in ")[0]) for c in found.checks}
    assert "by the given" not in str(verify(planned, level=level, derivative=True))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("text", [GRAM, "x[N,C]; y[a,b] = softmax[b](x[a,d]*w[d,b])"])
def test_a_graph_that_returns_no_finite_numbers_is_refused(text, factor, dtype):
    graph = lower(pa.plan(text, {"N": 2, "C": 2}))
    found = verify(mutated(graph, times(factor)), level="numeric", dtypes=[dtype], seed=0)
    assert not found
    assert found.difference is not None
    assert found.difference.count == 8
    assert found.difference.graph in ("nan", "inf", "-inf")
    assert found.entries == 8
