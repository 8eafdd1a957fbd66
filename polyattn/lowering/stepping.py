"""A step of a causal specification as a torch module: one position's tensors and the states to its output and the new
states.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import fx, nn

from polyattn.lowering.emit import Emitter
from polyattn.lowering.graphs import placeholder
from polyattn.lowering.module import LoweredGraph
from polyattn.planning import Leaf
from polyattn.planning.decoding import DecodingPlan


@lru_cache(maxsize=256)
def lower_step(plan: DecodingPlan) -> fx.GraphModule:
    """Return a step as a graph of torch operations.

    Its arguments are the inputs without their ordered axis, the parameters, and the states, all with one axis for each
    atomic size, behind the batch but for parameters. It returns the output, and then the new states.
    """
    emitter = Emitter(plan.graph, plan.names, fx.Graph())
    leaves = {node.tensor: node for node in plan.graph.nodes if isinstance(node, Leaf)}
    values: dict[str, Any] = {}
    for number, tensor in enumerate((*plan.spec.inputs, *plan.spec.parameters, *plan.state)):
        value = placeholder(emitter.graph, f"arg{number}", tensor)
        if tensor in leaves:
            values[tensor] = value
        if tensor in plan.state or tensor in plan.spec.inputs:
            emitter.reference = emitter.reference or value
    emitter.run(values)
    emitter.graph.output(tuple(emitter.values[o.value] for o in plan.graph.outputs))
    emitter.graph.lint()
    module = LoweredGraph(nn.Module(), emitter.graph, class_name="LoweredStep")
    module.meta["plan"] = plan
    return module
