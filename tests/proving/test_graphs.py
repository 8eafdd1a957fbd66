"""Graphs that a user has changed: verify says that they cannot run, or refuses them, at every level."""

from copy import deepcopy

import pytest
import torch

import polyattn as pa

SPEC = "x[N,C]; y[a,b] = x[a,d]*w[d,f]*x[e,f]*x[e,b] + 1/3*x[a,b]"
LEVELS = ("symbolic", "modular", "numeric")


def without_arguments(graph):
    for node in graph.nodes:
        if node.op == "call_method":
            node.args, node.kwargs = node.args[:1], {}


def repeated_axes(graph):
    next(n for n in graph.nodes if n.target == "permute").args = (next(iter(graph.nodes)), 0, 0, 1)


def an_axis_of_none(graph):
    append(graph, lambda value: graph.call_method("unflatten", (value, 0, (0, -1))))


def times_a_text(graph):
    append(graph, lambda value: graph.call_function(torch.mul, (value, "a")))


def nothing(graph):
    output(graph).args = (None,)


def a_number(graph):
    output(graph).args = (3,)


def two_tensors(graph):
    output(graph).args = ((output(graph).args[0],) * 2,)


def output(graph):
    return next(n for n in graph.nodes if n.op == "output")


def append(graph, make):
    with graph.inserting_before(output(graph)):
        value = make(output(graph).args[0])
    output(graph).args = (value,)


def changed(change):
    module = deepcopy(pa.lower(pa.plan(SPEC, {"N": 3, "C": 2})))
    change(module.graph)
    module.recompile()
    return module


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "change", [without_arguments, repeated_axes, an_axis_of_none, times_a_text, nothing, a_number, two_tensors]
)
def test_a_graph_that_cannot_run_is_not_its_specification(change, level):
    result = pa.verify(changed(change), level=level, seed=0)
    assert not result
    assert any(check.failure or check.difference for check in result.checks)


@pytest.mark.parametrize("level", LEVELS)
def test_a_graph_of_more_arguments_than_its_plan_is_refused(level):
    def one_more(graph):
        with graph.inserting_before(next(iter(graph.nodes))):
            graph.placeholder("extra")

    with pytest.raises(pa.ProofError, match="takes 3 tensors, but its plan has 2"):
        pa.verify(changed(one_more), level=level)
