"""`lower` and `lower_backward`: a plan's graphs as `torch.fx.GraphModule`s whose code reads like torch by hand."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Sequence
from functools import lru_cache

from torch import fx, nn

from polyattn.errors import SizeError
from polyattn.language import Atoms, value_of
from polyattn.lowering.emit import Emitter
from polyattn.lowering.shapes import expect_shape
from polyattn.planning import Graph, Leaf, Plan

RESERVED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "torch", "device", "inf", "nan", "fx_pytree"}


def lower(plan: Plan) -> fx.GraphModule:
    """The plan's forward pass as a graph of torch operations.

    The module's arguments are the inputs, of shape (B, *axes), then the parameters, by position or by name
    (`graph(x, w1=w1, w2=w2, w3=w3)`); a name that Python or torch reserves, such as `lambda`, has an underscore
    at its end. The graph holds for the plan's sizes and for any batch; other sizes raise `SizeError` at run time.

    Returns:
        A module without parameters of its own. `print(module.code)` is readable torch.
    """
    return _lower(_checked(plan), ())


def lower_with_kept(plan: Plan) -> fx.GraphModule:
    """The forward pass of a training plan, returning the output and then the values kept for the backward pass."""
    backward = _checked(plan).backward
    assert backward is not None, "the plan has no planned backward pass"
    return _lower(plan, backward.kept, as_tuple=True)


def lower_backward(plan: Plan) -> fx.GraphModule:
    """The planned backward pass as a graph of torch operations.

    Its arguments are the output's gradient (called as `plan.seed`), the inputs, the parameters, and the kept values
    in the order of `plan.backward.kept`; it returns the gradients of the inputs and parameters as a tuple, None for
    those that the output does not depend on.

    Raises:
        SizeError: the plan has no planned backward pass: its objective is not "training", or it applies functions.
    """
    if _checked(plan).backward is None:
        raise SizeError("this plan has no planned backward pass: plan with objective='training', without functions")
    return _lower_backward(plan)


def _checked(plan: Plan) -> Plan:
    if not isinstance(plan, Plan):
        raise SizeError(f"lower() takes a plan, made with polyattn.plan(spec, sizes), not {type(plan).__name__}")
    return plan


@lru_cache(maxsize=1024)
def _lower(plan: Plan, kept: tuple[int, ...], as_tuple: bool = False) -> fx.GraphModule:
    arguments = argument_names(plan)
    emitter = Emitter(plan.graph, plan.names, fx.Graph())
    placeholders = {tensor: placeholder(emitter.graph, arguments[tensor]) for tensor in arguments}
    values = _leaves(emitter, plan, placeholders, plan.graph)
    emitter.run(values)
    output = _joined(emitter, emitter.values[plan.output.value], plan.spec.shape(plan.spec.output), True)
    emitter.graph.output((output, *(emitter.values[k] for k in kept)) if as_tuple else output)
    return _module(emitter, plan, "Lowered")


@lru_cache(maxsize=1024)
def _lower_backward(plan: Plan) -> fx.GraphModule:
    backward = plan.backward
    assert backward is not None
    arguments = argument_names(plan)
    emitter = Emitter(backward.graph, plan.backward_names, fx.Graph())
    seed = placeholder(emitter.graph, plan.seed)
    placeholders = {tensor: placeholder(emitter.graph, arguments[tensor]) for tensor in arguments}
    kept = {plan.names[k]: placeholder(emitter.graph, plan.names[k]) for k in backward.kept}
    values = kept | _leaves(emitter, plan, placeholders, backward.graph)
    values[plan.seed] = _split(emitter, seed, plan.spec.shape(plan.spec.output), True)
    emitter.reference = emitter.reference or seed
    emitter.run(values)
    gradients = {
        tensor: _joined(emitter, emitter.values[o.value], plan.spec.shape(tensor), tensor in plan.spec.inputs)
        for tensor, o in zip(backward.wanted, backward.graph.outputs, strict=True)
    }
    emitter.graph.output(tuple(gradients.get(tensor) for tensor in arguments))
    return _module(emitter, plan, "LoweredBackward")


def _module(emitter: Emitter, plan: Plan, name: str) -> fx.GraphModule:
    emitter.graph.lint()
    module = fx.GraphModule(nn.Module(), emitter.graph, class_name=name)
    module.meta["plan"] = plan
    return module


def placeholder(graph: fx.Graph, name: str) -> fx.Node:
    """A placeholder of exactly this name: fx by itself would make one variable of the arguments w1 and W1."""
    return graph.create_node("placeholder", name, name=name)


def argument_names(plan: Plan) -> dict[str, str]:
    """The graph's argument for each input and parameter, in the order of the arguments."""
    names: dict[str, str] = {}
    for tensor in (*plan.spec.inputs, *plan.spec.parameters):
        name = tensor
        while name in RESERVED or name in names.values() or re.fullmatch(r"_.*|.*_\d+", name):
            name += "_"
        names[tensor] = name
    return names


def _leaves(emitter: Emitter, plan: Plan, placeholders: dict[str, fx.Node], graph: Graph) -> dict[str, fx.Node]:
    """Inputs and parameters with one axis per atomic slot, their shapes checked; unused inputs are checked too."""
    spec, values = plan.spec, {}
    used = {node.tensor for node in graph.nodes if isinstance(node, Leaf)}
    for tensor, given in placeholders.items():
        if tensor in used or tensor in spec.inputs:
            slots, batched = spec.shape(tensor), tensor in spec.inputs
            shape = tuple(value_of(atoms, plan.sizes) for atoms in slots)
            checked = emitter.call(expect_shape, given, tensor, shape, batched)
            values[tensor] = _split(emitter, checked, slots, batched)
            if batched:
                emitter.reference = emitter.reference or checked
    return values


def _split(emitter: Emitter, value: fx.Node, slots: Sequence[Atoms], batched: bool) -> fx.Node:
    """The value with one axis per atomic size instead of one per slot."""
    for k in range(len(slots) - 1, -1, -1):
        if len(slots[k]) > 1:
            lengths = tuple(value_of([a], emitter.source.known) for a in slots[k])
            value = emitter.method("unflatten", value, k + int(batched), lengths)
    return value


def _joined(emitter: Emitter, value: fx.Node, slots: Sequence[Atoms], batched: bool) -> fx.Node:
    """The value with one axis per slot instead of one per atomic size."""
    for k, atoms in enumerate(slots):
        if len(atoms) > 1:
            start = k + int(batched)
            value = emitter.method("flatten", value, start, start + len(atoms) - 1)
    return value


__all__ = ["argument_names", "lower", "lower_backward", "lower_with_kept"]
