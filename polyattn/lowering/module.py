"""Generated graphs as modules, to copy and to store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import fx, nn
from torch.fx.graph import PythonCode
from torch.fx.node import map_arg

from polyattn.errors import SizeError

TENSOR = "tensor"
"""Key of a placeholder's `meta` for the name of its tensor, if that differs from the argument's."""


class LoweredGraph(fx.GraphModule):
    """A `torch.fx.GraphModule` of generated operations; pickled as its list of operations.

    fx stores a graph as code and traces it when it is loaded. That would lose the names of the steps and the rational
    coefficients, and cannot trace the checks of shapes.

    A call takes tensors by position or by their names in the specification, even names reserved by Python or torch.
    """

    def recompile(self) -> PythonCode:
        code = super().recompile()
        arguments = [n for n in self.graph.nodes if n.op == "placeholder"]
        self._arguments = {n.meta.get(TENSOR, n.target): n.target for n in arguments}
        # fx gives every graph module a class of its own, so this changes no other graph.
        type(self).__call__ = _called
        return code

    def _in_order(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
        """Return the arguments of a call in order; raise SizeError for missing, repeated or unknown ones."""
        tensors = list(self._arguments)
        ours = {argument: tensor for tensor, argument in self._arguments.items()}
        rest: dict[str, Any] = {}
        for name, value in named.items():
            # Both the specification's name and the argument's name in the code are accepted.
            tensor = name if name in self._arguments else ours.get(name, name)
            if tensor not in self._arguments:
                raise self._misfit(f"there is no tensor {name!r}")
            if tensor in rest or tensor in tensors[: len(given)]:
                raise self._misfit(f"tensor {tensor!r} is given twice")
            rest[tensor] = value
        missing = [tensor for tensor in tensors[len(given) :] if tensor not in rest]
        if missing:
            raise self._misfit(f"missing: {', '.join(missing)}")
        if len(given) > len(tensors):
            raise self._misfit(f"{len(given)} tensors are given")
        return [*given, *(rest[tensor] for tensor in tensors[len(given) :])]

    def _misfit(self, reason: str) -> SizeError:
        return SizeError(f"{reason}; this graph takes {', '.join(self._arguments)}, by position or by name")

    def __reduce__(self) -> tuple[Any, ...]:
        if any(node.op in ("get_attr", "call_module") for node in self.graph.nodes):
            return super().__reduce__()  # somebody added parts of their own
        # A graph of generated operations alone refers to importable functions, so its list of nodes pickles.
        nodes = [_StoredNode.of(node) for node in self.graph.nodes]
        return _restored, (nodes, self._get_name(), dict(self.meta), self.training)


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """Return the same graph with nodes, code and a class of its own, so that a change of either leaves the other."""
    restore, arguments = module.__reduce__()
    return restore(*arguments)


def _called(module: Any, /, *args: Any, **named: Any) -> Any:
    """Replace `fx.GraphModule.__call__`, whose signature leaves no room for a tensor named `self`."""
    return nn.Module.__call__(module, *module._in_order(args, named))


def as_function(module: fx.GraphModule) -> Callable[..., Any]:
    """Return the function of a generated module, without the module's hooks, on which compilers would guard."""
    # The generated code never reads `self`, so None will do.
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
        # Nodes of the old graph must not leak into the copy: they are stored by name and looked up here.
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
