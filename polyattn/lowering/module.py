"""Generated graphs as modules that can be copied and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import fx, nn
from torch.fx.node import map_arg


class LoweredGraph(fx.GraphModule):
    """A `torch.fx.GraphModule` of generated operations; pickled as its list of operations.

    fx stores a graph as code and traces that when it is loaded, which would lose the names of the steps and the
    rationals that their coefficients stand for, and cannot trace the checks of shapes.
    """

    def __reduce__(self) -> Any:
        if any(node.op in ("get_attr", "call_module") for node in self.graph.nodes):
            return super().__reduce__()  # somebody added parts of their own
        nodes = [_StoredNode.of(node) for node in self.graph.nodes]
        return _restored, (nodes, self._get_name(), dict(self.meta), self.training)


def as_function(module: fx.GraphModule) -> Callable[..., Any]:
    """The function that a generated module computes, without the module's hooks, which compilers would guard on."""
    return partial(type(module).forward, None)


class _Reference(NamedTuple):
    """The value of the node of this name."""

    name: str


class _StoredNode(NamedTuple):
    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, node: fx.Node) -> _StoredNode:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: _Reference(n.name))
        return cls(node.op, node.name, node.target, args, kwargs, dict(node.meta))


def _restored(nodes: list[_StoredNode], name: str, meta: dict[str, Any], training: bool) -> LoweredGraph:
    graph, values = fx.Graph(), {}

    def given(argument: Any) -> Any:
        if isinstance(argument, _Reference):
            return values[argument.name]
        if isinstance(argument, tuple | list):
            return type(argument)(map(given, argument))
        if isinstance(argument, dict):
            return {key: given(value) for key, value in argument.items()}
        return argument

    for stored in nodes:
        node = graph.create_node(stored.op, stored.target, given(stored.args), given(stored.kwargs), stored.name)
        node.meta.update(stored.meta)
        values[stored.name] = node
    graph.lint()
    module = LoweredGraph(nn.Module(), graph, class_name=name)
    module.meta.update(meta)
    return module.train(training)
