"""The graph of a module's forward pass, its submodules as single nodes, with the operations behind each node."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from polyattn.errors import ReadingError
from polyattn.optimising.pricing import Operation, Recorder, faked
from polyattn.planning import Device


@dataclass(frozen=True)
class Binding:
    """How a forward pass takes its arguments: the tensors by their place, all others as constants.

    Attributes:
        names: the parameters of `forward`, in their order.
        places: for each of them, its place among the tensors, or -1.
        constants: for each of them, its value where it is not a tensor.
        defaults: for each of them, its default.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    constants: tuple[Any, ...]
    defaults: tuple[Any, ...]

    def tensors(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any] | None:
        """Return the tensors of a call, or None if its other arguments are not those of the example."""
        if len(args) > len(self.names):
            return None
        found: list[Any] = []
        used = 0
        for k, name in enumerate(self.names):
            if k < len(args):
                value = args[k]
            elif name in kwargs:
                value, used = kwargs[name], used + 1
            else:
                value = self.defaults[k]
            if self.places[k] >= 0:
                if not isinstance(value, Tensor):
                    return None
                found.append(value)
            elif not _same(value, self.constants[k]):
                return None
        return found if used == len(kwargs) else None

    def arguments(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Return the keyword arguments of a call with these tensors."""
        return {
            name: tensors[place] if place >= 0 else constant
            for name, place, constant in zip(self.names, self.places, self.constants, strict=True)
        }


def _same(value: Any, constant: Any) -> bool:
    if value is constant:
        return True
    return type(value) is type(constant) and isinstance(value, bool | int | float | str) and value == constant


def bound(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Binding, list[Tensor]]:
    """Return how a call binds the parameters of a module's `forward`, and its tensors.

    Raises:
        ReadingError: arguments that are neither tensors nor constants, or of any number.
    """
    signature = inspect.signature(type(module).forward)
    parameters = list(signature.parameters.values())[1:]
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters):
        raise ReadingError("arguments of any number")
    given = dict(zip((p.name for p in parameters), args, strict=False)) | dict(kwargs)
    places, constants, tensors = [], [], []
    for p in parameters:
        value = given.get(p.name, p.default)
        tensor = isinstance(value, Tensor)
        if not (tensor or value is None or isinstance(value, bool | int | float | str)):
            raise ReadingError(f"the argument `{p.name}` is a {type(value).__name__}")
        places.append(len(tensors) if tensor else -1)
        constants.append(None if tensor else value)
        tensors += [value] if tensor else []
    defaults = tuple(None if p.default is p.empty else p.default for p in parameters)
    names = tuple(p.name for p in parameters)
    return Binding(names, tuple(places), tuple(constants), defaults), tensors


class _Shallow(fx.Tracer):
    """Submodules are single nodes, whatever they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def traced(module: nn.Module, binding: Binding, count: int) -> fx.Graph:
    """Return the graph of a module's forward pass.

    Raises:
        ReadingError: its control flow depends on its input, or it changes the module.
    """
    shadow = copy.deepcopy(module)
    names = [f"x{k}" for k in range(count)]
    kind = type(shadow)

    def call(self: Any, *tensors: Any) -> Any:
        return kind.forward(self, **binding.arguments(tensors))

    space: dict[str, Any] = {"call": call}
    exec(f"def forward(self, {', '.join(names)}): return call(self, {', '.join(names)})", space)
    before = {n: dict(vars(m)) for n, m in shadow.named_modules()}
    shadow.__class__ = type(kind.__name__, (kind,), {"forward": space["forward"], "__module__": kind.__module__})
    try:
        graph = _Shallow().trace(shadow)
    except Exception as error:
        raise ReadingError(f"its forward pass cannot be followed ({_first(error)})") from error
    for name, m in shadow.named_modules():
        if any(before[name].get(k, m) is not v for k, v in vars(m).items()):
            raise ReadingError("its forward pass changes the module's attributes")
    return graph


def _first(error: Exception) -> str:
    lines = str(error).strip().split("\n")
    return f"{type(error).__name__}: {lines[0][:100]}"


@dataclass(frozen=True)
class Notes:
    """Operations that ran behind each node of a graph.

    Attributes:
        operations: the operations of each node, in order.
        values: the result of each node, of fake tensors.
    """

    operations: dict[fx.Node, list[Operation]]
    values: dict[fx.Node, Any]


class _Noting(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, recorder: Recorder):
        super().__init__(module, garbage_collect_values=False)
        self.recorder = recorder
        self.operations: dict[fx.Node, list[Operation]] = {}
        self.values: dict[fx.Node, Any] = {}
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        before = len(self.recorder.operations)
        found = super().run_node(n)
        self.operations[n] = self.recorder.operations[before:]
        self.values[n] = found
        return found


def noted(module: nn.Module, graph: fx.Graph, tensors: Sequence[Any], device: Device) -> Notes:
    """Return the operations behind each node, found on fake tensors in float64.

    In float64 a change of the floating-point type by the code shows.

    Raises:
        ReadingError: the graph does not run so.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    wide = copy.deepcopy(module).to(torch.float64)
    interpreter = _Noting(fx.GraphModule(wide, graph), recorder := Recorder(device, 4))
    # Torch logs the shapes that do not fit, which is the question here.
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level, log.disabled = log.disabled, True
    try:
        given = faked(mode, tensors, torch.float64)
        with mode, torch.no_grad(), recorder:
            interpreter.run(*given)
    except Exception as error:
        raise ReadingError(f"its forward pass cannot be followed in float64 ({_first(error)})") from error
    finally:
        log.disabled = level
    return Notes(interpreter.operations, interpreter.values)


def fixed_axes(
    module: nn.Module,
    graph: fx.Graph,
    tensors: Sequence[Any],
    notes: Notes,
    device: Device,
    varied: Sequence[bool] = (),
) -> dict[fx.Node, tuple[int, ...]]:
    """Return the axes of each node's tensor whose lengths the module fixes.

    An axis is free if it grows where an axis of the module's arguments is twice as long and the code still runs.

    Args:
        varied: which of the arguments to change; by default all tensors.
    """
    free: dict[fx.Node, set[int]] = {}
    for k, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor) or (varied and not varied[k]):
            continue
        for axis in range(tensor.dim()):
            shape = list(tensor.shape)
            shape[axis] *= 2
            changed = [*tensors[:k], tensor.new_empty(shape), *tensors[k + 1 :]]
            try:
                found = noted(module, graph, changed, device)
            except ReadingError:
                continue
            for node, value in found.values.items():
                have = notes.values[node]
                if isinstance(value, Tensor) and isinstance(have, Tensor):
                    pairs = enumerate(zip(value.shape, have.shape, strict=True))
                    free.setdefault(node, set()).update(i for i, (a, b) in pairs if a != b)
    return {
        node: tuple(i for i in range(value.dim()) if i not in free.get(node, ()))
        for node, value in notes.values.items()
        if isinstance(value, Tensor)
    }
