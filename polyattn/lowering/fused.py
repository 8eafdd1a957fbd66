"""Plans with fused kernels: which kernels a plan runs with, and what it then takes in the roofline."""

from __future__ import annotations

from polyattn.lowering.fusion import Fusion
from polyattn.lowering.matching import Kernels, by_step, fusions, seconds
from polyattn.lowering.training import backward_pays, kernels_differentiate
from polyattn.planning import Device, Plan

AUTOGRAD = 3
"""What a forward pass and autograd's backward pass take of the forward pass: two products for each product."""


def with_kernels(plan: Plan, chosen: Kernels, device: Device) -> tuple[Plan, float]:
    """The plan with the kernels that layers will run it with, and the roofline's seconds for what it was made for.

    Args:
        plan: for any objective.
        chosen: which kernels, as in `lower`.
        device: the roofline.
    """
    forward = fusions(plan.graph, frozenset(), chosen)
    if plan.objective != "training":
        return _showing(plan, forward), seconds(plan.graph, forward, device)
    if plan.backward is None or not backward_pays(plan, device) or kernels_differentiate(plan, chosen):
        return _showing(plan, forward), AUTOGRAD * seconds(plan.graph, forward, device)
    forward = fusions(plan.graph, frozenset(plan.backward.kept), chosen)
    backward = fusions(plan.backward.graph, frozenset(), chosen)
    both = seconds(plan.graph, forward, device) + seconds(plan.backward.graph, backward, device)
    return _showing(plan, forward, backward), both


def _showing(plan: Plan, forward: dict[int, Fusion], backward: dict[int, Fusion] | None = None) -> Plan:
    shown = [*by_step(forward, plan.names)]
    if backward:
        shown += by_step(backward, plan.backward_names)
    return plan.with_kernels(tuple(sorted(shown)))
