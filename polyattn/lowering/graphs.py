"""`lower` and `lower_backward`: a plan's graphs as `torch.fx.GraphModule`s whose code reads like torch by hand."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import fx, nn

from polyattn.algebra import Index
from polyattn.errors import SizeError, SpecError
from polyattn.language.names import NAME, NAME_RULE
from polyattn.lowering.devices import calibrated, kind
from polyattn.lowering.emit import Emitter
from polyattn.lowering.matching import Kernels, as_choice, by_step, fusions
from polyattn.lowering.module import TENSOR, LoweredGraph, copied
from polyattn.lowering.shapes import expect_shape, readings
from polyattn.lowering.views import with_fewer_views
from polyattn.planning import BATCH, Device, Graph, Leaf, Plan
from polyattn.planning.accuracy import maps
from polyattn.planning.centring import deviations
from polyattn.planning.chunked_plan import ChunkedPlan

RESERVED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "torch", "device", "inf", "nan", "fx_pytree"}
NUMBERED = re.compile(r".*_\d+")
"""Names that fx gives to its own values, and counts on from."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a graph.

    Attributes:
        read: atomic sizes that are read from the shapes of the inputs in each call; all others are the plan's numbers.
        short: those of them of which plans take matrices extended by an identity, as small ones are.
        checked: whether a call checks the shapes of its tensors. Only such a graph has a value for each step; others
            have fewer views.
        positions: if given, an unchecked forward pass takes its first input as a map (B, C, *positions) and returns
            one, and not (B, *positions, C): with any number of spatial axes for 1, else with this number.
    """

    read: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    checked: bool = False
    positions: int | None = None

    @property
    def long(self) -> tuple[str, ...]:
        """Return the sizes that may be long."""
        return tuple(s for s in self.read if s not in self.short)


CHECKED = Sizes(checked=True)

Own = Callable[[torch.Tensor], torch.Tensor]
Owns = tuple[tuple[str, Own], ...]
"""Functions of the user's own by name, sorted."""

Orders = dict[str, tuple[int, ...]]
"""Axes of tensors by name, in the order in which they lie in memory, the slowest first."""


def lower(
    plan: Plan | ChunkedPlan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    dynamic: Sequence[str] = (),
    functions: Mapping[str, Own] | None = None,
) -> fx.GraphModule:
    """Return the plan's forward pass as a graph of torch operations.

    The module's arguments are the inputs, of shape (B, *axes), then the parameters, by position or by name:
    `graph(x, w1=w1, w2=w2, w3=w3)`, or `graph(x, **{"lambda": w})` for a name that Python or torch reserves, which
    has an underscore at its end in the code (and where a compiler or `torch.export` reads the call). The graph
    holds for the plan's sizes and for any batch; other sizes, and tensors that are missing or unknown, raise
    `SizeError` when it is called.

    Args:
        plan: the computation.
        channels_first: how the inputs lie in memory: whether their last axis, the channels, comes before the positions,
            as in (B, H, W, C) views of (B, C, H, W) tensors. The graph computes the same for any tensors; for those it
            copies least.
        kernels: "auto": fused kernels (`polyattn.kernels`) in the place of steps wherever the cost model says that
            they are faster on "cuda" with Triton, and `attention` on every device; "off"; or the names of kernels that
            are taken wherever they apply. `print(module.meta["plan"])` shows which.
        device: the type of the device that the graph will run on, or its figures.
        dtype: in which products are computed, which decides where kernels pay: the one that the plan was made for. For
            one of 16 bits, tensors as small as weights and sums over positions are held in float32, and
            autocast is not to be on in a call.
        dynamic: names of sizes that the graph reads from the shapes of its inputs in each call, with factors such as
            1/N; the order of the steps is the plan's at every size.
        functions: a function of a tensor, entry by entry, for each function of your own (`where phi : function`).

    Returns:
        A module without parameters of its own, which can be copied, pickled and changed: each call returns another
        one. `print(module.code)` is readable torch.

    Raises:
        SizeError: `plan` is not a `Plan`, `kernels` names an unknown kernel, or a dynamic size is unknown or does not
            follow from the shapes of the inputs.
        SpecError: `functions` does not fit the functions that the specification declares.
    """
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device, "dtype": dtype}
    options["functions"] = functions
    if isinstance(plan, ChunkedPlan):
        from polyattn.lowering.chunking import LoweredChunks

        if dynamic:
            raise SizeError("`dynamic` is for plans of all positions at once: a chunked plan has its number of chunks")
        return LoweredChunks(plan, **options)  # pyright: ignore[reportReturnType]
    return copied(shared(plan, "forward", **options, sizes=Sizes(_atoms(plan, dynamic), checked=True)))


def is_narrow(dtype: str | torch.dtype) -> bool:
    """Return whether a dtype, given itself or by name, has 16 bits."""
    return str(dtype).removeprefix("torch.") in ("float16", "bfloat16")


def lower_with_kept(
    plan: Plan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    functions: Mapping[str, Own] | None = None,
) -> fx.GraphModule:
    """The forward pass of a training plan, returning the output and then the values kept for the backward pass."""
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device, "dtype": dtype}
    options["functions"] = functions
    return copied(shared(plan, "kept", **options, sizes=CHECKED))


def lower_backward(
    plan: Plan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    functions: Mapping[str, Own] | None = None,
) -> fx.GraphModule:
    """Return the planned backward pass as a graph of torch operations.

    Its arguments are the output's gradient (called as `plan.seed`), the inputs, the parameters, and the kept values
    in the order of `plan.backward.kept`, all of the shapes that the forward pass has checked. It returns the
    gradients of the inputs and parameters as a tuple, None for those that the output does not depend on.

    Raises:
        SizeError: a plan without a planned backward pass: its objective is not "training".
    """
    options: Any = {"kernels": kernels, "device": device, "dtype": dtype, "functions": functions}
    return copied(shared(plan, "backward", channels_first=channels_first, **options))


def shared(
    plan: Plan,
    part: Literal["forward", "kept", "backward"],
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    sizes: Sizes = CHECKED,
    functions: Mapping[str, Own] | None = None,
) -> fx.GraphModule:
    """Return the cached graph of `lower`, `lower_with_kept` or `lower_backward`, for callers that only run it.

    Layers look functions up by shape and take many of them: a copy costs them a third of the lowering.

    Args:
        sizes: those that are read from shapes, and whether shapes are checked in each call.

    Raises:
        SizeError: `plan` is not a plan, or has no planned backward pass for a part that needs one.
    """
    backward = _checked(plan).backward
    plan.spec.check_functions(functions or {})
    own = tuple(sorted((functions or {}).items()))
    if part == "forward":
        model = device if isinstance(device, Device) else calibrated(kind(device), dtype)
        return _lower(plan, channels_first, as_choice(kernels, model), None, is_narrow(dtype), sizes, own)[0]
    if backward is None:
        raise SizeError("this plan has no planned backward pass: plan with objective='training'")
    if part == "kept":
        return _lower(plan, channels_first, as_choice(kernels, device), backward.kept, is_narrow(dtype), sizes, own)[0]
    return _lower_backward(plan, channels_first, as_choice(kernels, device), is_narrow(dtype), sizes, own)


def _checked(plan: Plan) -> Plan:
    if not isinstance(plan, Plan):
        raise SizeError(f"lower() takes a plan, made with polyattn.plan(spec, sizes), not {type(plan).__name__}")
    return plan


@lru_cache(maxsize=1024)
def _lower(
    plan: Plan,
    channels_first: bool,
    kernels: Kernels,
    kept: tuple[int, ...] | None,
    narrow: bool,
    sizes: Sizes,
    own: Owns,
) -> tuple[fx.GraphModule, Orders]:
    """The forward pass, with how the kept values lie in memory, by name; the graph returns them if they are given."""
    arguments = argument_names(plan)
    orders = _orders(plan, channels_first)
    chosen = fusions(plan.graph, frozenset(kept or ()), kernels)
    emitter = Emitter(plan.graph, plan.names, fx.Graph(), ranks=_ranks(plan, orders), fusions=chosen)
    emitter.maps, emitter.narrow, emitter.means = maps(plan.graph, plan.spec), narrow, plan.means
    emitter.deviations, emitter.functions = plan.deviations, dict(own)
    placeholders = {tensor: placeholder(emitter.graph, name, tensor) for tensor, name in arguments.items()}
    emitter.run(_leaves(emitter, plan, placeholders, plan.graph, sizes), orders)
    output = emitter.joined(emitter.values[plan.output.value], plan.spec.shape(plan.spec.output), True)
    if narrow:
        output = emitter.method("type_as", output, emitter.reference)
    emitter.graph.output(output if kept is None else (output, *(emitter.exact.get(k, emitter.values[k]) for k in kept)))
    lies = {plan.names[k]: _places(plan.nodes[k].output, emitter.memory[k]) for k in kept or ()}
    if not sizes.checked:
        emitter.graph = with_fewer_views(
            emitter.graph, _axes(plan, arguments), sizes.positions if kept is None else None
        )
    return _module(emitter, plan.with_kernels(tuple(sorted(by_step(chosen, plan.names)))), "Lowered"), lies


@lru_cache(maxsize=1024)
def _lower_backward(
    plan: Plan, channels_first: bool, kernels: Kernels, narrow: bool, sizes: Sizes, own: Owns
) -> fx.GraphModule:
    backward = plan.backward
    assert backward is not None
    arguments = argument_names(plan)
    orders = _orders(plan, channels_first)
    orders[plan.seed] = _order(plan, plan.spec.output, channels_first)
    chosen = fusions(backward.graph, frozenset(), kernels)
    emitter = Emitter(backward.graph, plan.backward_names, fx.Graph(), ranks=_ranks(plan, orders), fusions=chosen)
    emitter.maps, emitter.narrow = maps(backward.graph, plan.spec), narrow
    emitter.means, emitter.functions = plan.backward_means, dict(own)
    emitter.deviations = deviations(backward.graph.nodes, plan.spec)
    seed = placeholder(emitter.graph, plan.seed)
    placeholders = {tensor: placeholder(emitter.graph, name, tensor) for tensor, name in arguments.items()}
    kept = {plan.names[k]: placeholder(emitter.graph, plan.names[k]) for k in backward.kept}
    values = kept | _leaves(emitter, plan, placeholders, backward.graph, replace(sizes, checked=False))
    values[plan.seed] = emitter.split(seed, plan.spec.shape(plan.spec.output), True, plan.sizes)
    emitter.reference = emitter.reference or seed
    orders |= _lower(plan, channels_first, kernels, backward.kept, narrow, sizes, own)[1]
    emitter.run(values, orders)
    gradients = {
        tensor: emitter.joined(emitter.values[o.value], plan.spec.shape(tensor), tensor in plan.spec.inputs)
        for tensor, o in zip(backward.wanted, backward.graph.outputs, strict=True)
    }
    emitter.graph.output(tuple(gradients.get(tensor) for tensor in arguments))
    if not sizes.checked:
        axes = _axes(plan, arguments) | {plan.names[k]: len(plan.nodes[k].output) for k in backward.kept}
        axes[plan.seed] = 1 + len(plan.spec.shape(plan.spec.output))
        emitter.graph = with_fewer_views(emitter.graph, axes)
    shown = tuple(sorted(by_step(chosen, plan.backward_names)))
    return _module(emitter, plan.with_kernels(shown), "LoweredBackward")


def _atoms(plan: Plan, names: Sequence[str]) -> tuple[str, ...]:
    """The atomic sizes of some sizes of a plan.

    Raises:
        SizeError: a name is not one of its sizes.
    """
    table = _checked(plan).spec.sizes
    unknown = [name for name in names if name not in table.names]
    if unknown:
        raise SizeError(f"`dynamic` names {unknown[0]!r}; the sizes are {', '.join(table.names)}")
    return tuple(dict.fromkeys(a for name in names for a in table.atoms(name) if not a.isdigit()))


def _orders(plan: Plan, channels_first: bool) -> Orders:
    """How the inputs lie in memory."""
    return {tensor: _order(plan, tensor, channels_first) for tensor in plan.spec.inputs}


def _order(plan: Plan, tensor: str, channels_first: bool) -> tuple[int, ...]:
    """How an input, or a tensor like the output, lies in memory: its axes, the slowest first."""
    shape = plan.spec.shape(tensor)
    count, last = sum(map(len, shape)), len(shape[-1]) if shape else 0
    axes = range(1, count + 1)
    return (0, *axes[count - last :], *axes[: count - last]) if channels_first else (0, *axes)


def _ranks(plan: Plan, orders: Orders) -> dict[str, int]:
    """The place of each size in the memory of the first input that has it."""
    found: dict[str, int] = {BATCH: -1}
    for tensor in plan.spec.inputs:
        sizes = [BATCH, *(a for slot in plan.spec.shape(tensor) for a in slot)]
        for axis in orders[tensor]:
            found.setdefault(sizes[axis], len(found))
    return found


def _places(axes: Sequence[Index], order: Sequence[Index]) -> tuple[int, ...]:
    return tuple(axes.index(i) for i in order)


def _module(emitter: Emitter, plan: Plan, name: str) -> fx.GraphModule:
    emitter.graph.lint()
    module = LoweredGraph(nn.Module(), emitter.graph, class_name=name)
    module.meta["plan"] = plan
    return module


def placeholder(graph: fx.Graph, name: str, tensor: str | None = None) -> fx.Node:
    """A placeholder of exactly this name: fx by itself would make one variable of the arguments w1 and W1.

    Args:
        tensor: the tensor's own name, by which a call of the module may give it.
    """
    _check_name(name)
    node = graph.create_node("placeholder", name, name=name)
    if tensor is not None and tensor != name:
        node.meta[TENSOR] = tensor
    return node


def argument_names(plan: Plan) -> dict[str, str]:
    """The graph's argument for each input and parameter, in the order of the arguments."""
    names: dict[str, str] = {}
    tensors = (*plan.spec.inputs, *plan.spec.parameters)
    taken = set(tensors)
    for tensor in tensors:
        _check_name(tensor)
        name = tensor
        while name in RESERVED or NUMBERED.fullmatch(name) or (name != tensor and name in taken):
            name += "_"
        names[tensor] = name
        taken.add(name)
    return names


def _axes(plan: Plan, arguments: Mapping[str, str]) -> dict[str, int]:
    """The number of axes of each of the graph's arguments."""
    spec = plan.spec
    return {name: len(spec.shape(tensor)) + (tensor in spec.inputs) for tensor, name in arguments.items()}


def _check_name(name: str) -> None:
    """Raise a SpecError for text that could be more than a name in the code that fx writes.

    The language has refused it before; this is for plans that did not come from there.
    """
    if not re.fullmatch(NAME, name):
        raise SpecError(f"{name!r} is no name of a tensor: {NAME_RULE}")


def _leaves(
    emitter: Emitter, plan: Plan, placeholders: dict[str, fx.Node], graph: Graph, sizes: Sizes
) -> dict[str, fx.Node]:
    """Inputs and parameters with one axis per atomic slot, their shapes checked; unused inputs are checked too."""
    spec, values = plan.spec, {}
    emitter.long = sizes.long
    emitter.read(readings(spec, sizes.read), placeholders)
    used = {node.tensor for node in graph.nodes if isinstance(node, Leaf)}
    for tensor, given in placeholders.items():
        if tensor in used or tensor in spec.inputs:
            slots, batched = spec.shape(tensor), tensor in spec.inputs
            checked = given
            if sizes.checked:
                shape = tuple(map(emitter.slot, slots))
                checked = emitter.call(expect_shape, given, tensor, shape, batched)
            values[tensor] = emitter.split(checked, slots, batched, plan.sizes)
            if batched:
                emitter.reference = emitter.reference or checked
    return values


__all__ = ["argument_names", "lower", "lower_backward", "lower_with_kept"]
