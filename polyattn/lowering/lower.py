"""`lower`: a plan as a `torch.fx.GraphModule` whose code reads like torch written by hand."""

from __future__ import annotations

import builtins
import keyword
import re
from functools import lru_cache

from torch import fx, nn

from polyattn.errors import SizeError
from polyattn.lowering.emit import Emitter, emit_leaf
from polyattn.planning import Leaf, Plan

RESERVED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "torch", "device", "inf", "nan", "fx_pytree"}


def lower(plan: Plan) -> fx.GraphModule:
    """The plan as a graph of torch operations.

    The module's arguments are the inputs, of shape (B, *axes), then the parameters, by position or by name
    (`graph(x, w1=w1, w2=w2, w3=w3)`); a name that Python or torch reserves, such as `lambda`, has an underscore
    at its end. The graph holds for the plan's sizes and for any batch; other sizes raise `SizeError` at run time.

    Returns:
        A module without parameters of its own. `print(module.code)` is readable torch.
    """
    if not isinstance(plan, Plan):
        raise SizeError(f"lower() takes a plan, made with polyattn.plan(spec, sizes), not {type(plan).__name__}")
    return _lower(plan)


@lru_cache(maxsize=1024)
def _lower(plan: Plan) -> fx.GraphModule:
    emitter = Emitter(plan)
    spec = plan.spec
    arguments = argument_names(plan)
    placeholders = {tensor: emitter.graph.placeholder(arguments[tensor]) for tensor in arguments}
    leaves = {node.tensor: node for node in plan.nodes if isinstance(node, Leaf)}
    for tensor in spec.inputs:
        # Unused inputs are checked too: their batch is the output's.
        leaves.setdefault(tensor, Leaf(tensor, (), True))
    values = {t: emit_leaf(emitter, leaves[t], placeholders[t]) for t in arguments if t in leaves}
    emitter.reference = values[next(iter(spec.inputs))]
    for number, node in enumerate(plan.nodes):
        value = values[node.tensor] if isinstance(node, Leaf) else emitter.node(number)
        emitter.values.append(value)
    emitter.graph.output(_finish(emitter))
    emitter.graph.lint()
    module = fx.GraphModule(nn.Module(), emitter.graph, class_name="Lowered")
    module.meta["plan"] = plan
    return module


def argument_names(plan: Plan) -> dict[str, str]:
    """The graph's argument for each input and parameter, in the order of the arguments."""
    names: dict[str, str] = {}
    for tensor in (*plan.spec.inputs, *plan.spec.parameters):
        name = tensor
        while name in RESERVED or name in names.values() or re.fullmatch(r"_.*|.*_\d+", name):
            name += "_"
        names[tensor] = name
    return names


def _finish(emitter: Emitter) -> fx.Node:
    """The output with one axis per slot, and with the batch axis even if it depends on no input."""
    plan = emitter.plan
    value = emitter.values[plan.output.value]
    if not plan.nodes[plan.output.value].batched:
        batch = emitter.method("size", emitter.reference, 0)
        lengths = [emitter.size(i) for i in plan.output.indices]
        value = emitter.method("expand", value, batch, *lengths)
    for k, atoms in enumerate(plan.spec.shape(plan.spec.output)):
        if len(atoms) > 1:
            value = emitter.method("flatten", value, k + 1, k + len(atoms))
    return value


__all__ = ["argument_names", "lower"]
