"""Plans with fused kernels: which kernels a plan runs with, and what it then takes in the roofline."""

from __future__ import annotations

from dataclasses import dataclass

from polyattn.lowering.fusion import Fusion
from polyattn.lowering.matching import Kernels, by_step, fusions, seconds
from polyattn.lowering.training import backward_pays, kernels_differentiate
from polyattn.planning import Device, Plan

Fusions = dict[int, Fusion]

AUTOGRAD = 3
"""What a forward pass and autograd's backward pass take of the forward pass: two products for each product."""


def with_kernels(plan: Plan, chosen: Kernels, device: Device) -> tuple[Plan, float]:
    """The plan with the kernels that layers will run it with, and the roofline's seconds for what it was made for.

    Args:
        plan: for any objective; without a planned backward pass, training counts autograd's.
        chosen: which kernels, as in `lower`.
        device: the roofline.
    """
    forward, backward, found = _taken(plan, chosen, device)
    shown = [*by_step(forward, plan.names)]
    if backward:
        shown += by_step(backward, plan.backward_names)
    return plan.with_kernels(tuple(sorted(shown))), found


def _taken(plan: Plan, chosen: Kernels, device: Device) -> tuple[Fusions, Fusions, float]:
    """The kernels of the forward pass, of the planned backward pass if layers run it, and the seconds of both."""
    forward = fusions(plan.graph, frozenset(), chosen)
    if plan.objective != "training":
        return forward, {}, seconds(plan.graph, forward, device)
    if plan.backward is None or not backward_pays(plan, device) or kernels_differentiate(plan, chosen):
        return forward, {}, AUTOGRAD * seconds(plan.graph, forward, device)
    forward = fusions(plan.graph, frozenset(plan.backward.kept), chosen)
    backward = fusions(plan.backward.graph, frozenset(), chosen)
    return forward, backward, seconds(plan.graph, forward, device) + seconds(plan.backward.graph, backward, device)


@dataclass(frozen=True)
class Price:
    """What plans take with kernels, as a value that caches can keep."""

    kernels: Kernels
    device: Device

    def __call__(self, plan: Plan) -> float:
        return _taken(plan, self.kernels, self.device)[2]
