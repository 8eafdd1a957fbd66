"""`Memory`: the bytes that a plan's passes allocate and their products, as the steps say where no torch counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyattn.planning.plan import Plan


@dataclass(frozen=True)
class Memory:
    """Bytes in float32 that the passes of a plan allocate, without inputs, parameters and the output's gradient.

    Products are counted in the same run.

    Attributes:
        forward: the most at once in the forward pass, kept values and output included.
        kept: the values kept for the planned backward pass.
        backward: the most at once in the backward pass, kept values, output and returned gradients included; 0 without
            a planned one.
        macs, backward_macs: multiply-accumulates of both passes, with those of zeros that lowering fills in.
    """

    forward: int
    kept: int = 0
    backward: int = 0
    macs: int = 0
    backward_macs: int = 0

    @property
    def peak(self) -> int:
        """Return the most bytes at once in either pass."""
        return max(self.forward, self.backward)


Allocations = Callable[["Plan"], Memory]
"""A way to count the memory and the products of a plan."""


def memory_of_steps(plan: Plan) -> Memory:
    """Return the memory of a plan's values, without copies and temporaries of the operations that make them."""
    kept = plan.step_kept_bytes
    if plan.backward is None:
        return Memory(plan.step_peak_bytes, macs=plan.macs)
    inside, output = plan.inside, plan.output.value
    held = {*plan.backward.kept, output} - {*inside}
    forward = plan.graph.peak(inside, held)
    backward = plan.backward.graph.peak_bytes + sum(map(plan.graph.bytes_of, held))
    return Memory(forward, kept, backward, plan.macs, plan.backward_macs)
