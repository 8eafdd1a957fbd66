"""Plans with fused kernels: the kernels of a plan, and its time in the roofline with them."""

from __future__ import annotations

from dataclasses import dataclass

from polyattn.lowering.fusion import Fusion
from polyattn.lowering.matching import Kernels, by_step, fusions, seconds
from polyattn.lowering.training import backward_pays, kernels_differentiate
from polyattn.planning import Device, Plan

Fusions = dict[int, Fusion]

AUTOGRAD = 3
"""Time of a forward pass with autograd's backward pass, in forward passes: two products for each product."""


def with_kernels(plan: Plan, chosen: Kernels, device: Device) -> tuple[Plan, float]:
    """Return the plan with the kernels that layers run, and the roofline's seconds for its objective.

    Args:
        plan: for any objective; without a planned backward pass, training counts autograd's.
        chosen: the kernels, as in `lower`.
        device: the roofline.
    """
    forward, backward, found = _taken(plan, chosen, device)
    shown = [*by_step(forward, plan.names)]
    if backward:
        shown += by_step(backward, plan.backward_names)
    return plan.with_kernels(tuple(sorted(shown))), found


def _taken(plan: Plan, chosen: Kernels, device: Device) -> tuple[Fusions, Fusions, float]:
    """Return the kernels of the forward pass and of the planned backward pass, if layers run it, and their seconds."""
    forward = fusions(plan.graph, frozenset(), chosen)
    if plan.objective != "training":
        return forward, {}, seconds(plan.graph, forward, device)
    if plan.backward is None or not backward_pays(plan, device) or kernels_differentiate(plan, chosen):
        return forward, {}, AUTOGRAD * seconds(plan.graph, forward, device)
    # Values kept for the backward pass have a reader outside the forward graph, so no kernel may absorb them.
    forward = fusions(plan.graph, frozenset(plan.backward.kept), chosen)
    backward = fusions(plan.backward.graph, frozenset(), chosen)
    return forward, backward, seconds(plan.graph, forward, device) + seconds(plan.backward.graph, backward, device)


@dataclass(frozen=True)
class Price:
    """The time of plans with kernels, as a hashable value for caches."""

    kernels: Kernels
    device: Device

    def __call__(self, plan: Plan) -> float:
        return _taken(plan, self.kernels, self.device)[2]
