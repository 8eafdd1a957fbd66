"""Regions of generated graphs: disjoint, with one result each, and run by themselves they give its value."""

from __future__ import annotations

import operator

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from polyattn.optimising.regions import as_module, may_win, regions
from polyattn.optimising.tracing import noted
from polyattn.planning import DEVICES
from tests.drawing import share

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "matmul", "mul", "mT", "relu", "rows", "split"]), st.integers(0, 99), st.integers(0, 99)
    ),
    min_size=1,
    max_size=14,
)


def drawn_graph(steps):
    """Return a graph on square matrices; the sum of all values that nobody reads is its result."""
    graph = fx.Graph()
    values = [graph.placeholder("x0"), graph.placeholder("x1")]
    for name, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        if name == "add":
            values.append(graph.call_function(operator.add, (a, b)))
        elif name in ("matmul", "mul"):
            values.append(graph.call_function(getattr(torch, name), (a, b)))
        elif name == "mT":
            values.append(graph.call_method("transpose", (a, -2, -1)))
        elif name == "relu":
            values.append(graph.call_function(torch.relu, (a,)))
        elif name == "rows":
            values.append(graph.call_function(operator.truediv, (a, graph.call_method("size", (b, 0)))))
        else:
            parts = graph.call_method("unbind", (graph.call_function(torch.stack, ([a, b],)),))
            values.append(graph.call_function(operator.getitem, (parts, j % 2)))
    last = values[-1]
    for value in values[:-1]:
        if not value.users:
            last = graph.call_function(operator.add, (last, value))
    graph.output(last)
    return graph


class _Values(fx.Interpreter):
    def run_node(self, n):
        found = super().run_node(n)
        self.env[n] = found
        return found


@share(0.5)
@given(STEPS)
def test_regions_are_disjoint_and_each_gives_its_result_by_itself(steps):
    graph, tensors = drawn_graph(steps), [torch.full((3, 3), 0.1).triu() for _ in range(2)]
    root = nn.Module()
    notes = noted(root, graph, tensors, DEVICES["cpu"])
    interpreter = _Values(fx.GraphModule(root, graph), garbage_collect_values=False)
    interpreter.run(*tensors)
    # The graph of the interpreter is a copy.
    real = dict(zip(graph.nodes, (interpreter.env.get(n) for n in interpreter.module.graph.nodes), strict=True))
    seen = set()
    for region in regions(graph, notes.values, notes.operations, set()):
        tensors_inside = {n for n in region.nodes if isinstance(notes.values[n], torch.Tensor)}
        assert not tensors_inside & seen
        seen |= tensors_inside
        assert all(set(n.users) <= set(region.nodes) for n in tensors_inside - {region.result})
        alone = as_module(region, root, lambda k: f"x{k}")
        torch.testing.assert_close(alone(*(real[n] for n in region.inputs)), real[region.result])


def graph_of(function, count):
    names = ", ".join(f"x{k}" for k in range(count))
    space = {"f": function}
    exec(f"def run({names}): return f({names})", space)
    return fx.symbolic_trace(space["run"]).graph


def promising(function, count=2):
    graph, tensors = graph_of(function, count), [torch.randn(4, 4) for _ in range(count)]
    notes = noted(nn.Module(), graph, tensors, DEVICES["cpu"])
    return any(may_win(r, notes.operations) for r in regions(graph, notes.values, notes.operations, set()))


def test_products_with_linear_operations_between_them_are_promising_and_others_are_not():
    assert promising(lambda x, y: ((x @ y) / 2 + x).transpose(0, 1) @ y)
    assert promising(lambda x, y: (x @ y).softmax(-1) @ y)
    assert promising(lambda x, y: (x * y).sum(0))
    assert promising(lambda x, y: (x @ y).mean(0))
    assert not promising(lambda x, y: torch.relu(x @ y) @ y)
    assert not promising(lambda x, y: torch.sigmoid(x @ y).mean(0))
    assert not promising(lambda x, y: (2 * x) @ y + y)
