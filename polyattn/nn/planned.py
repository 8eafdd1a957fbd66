"""Lowered plans by input shape, made once per process."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch.fx.experimental import symbolic_shapes

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import calibrated, keep, lower, plan, training_function
from polyattn.planning import DEVICES, Plan

NOMINAL_BATCH = 8
"""The batch that a plan is made for where a compiler keeps the batch symbolic. A plan computes every batch, and the
batch only weighs what is done once against what is done for each sample."""

FEWER = 0.98
"""The share of autograd's multiply-accumulates from which on a planned backward pass counts as cheaper."""
CALLS = 3
"""Calls from Python for each step of a planned backward pass: the operation, and views of its operands."""
NEGLIGIBLE = 0.05
"""The share of a layer's time that those calls may take where nothing else is won."""

_has_static_value = getattr(symbolic_shapes, "has_static_value", None)  # not in every torch that is supported


def is_static(size: int) -> bool:
    """Whether a size is a number: always, but for those that a compiler keeps symbolic."""
    if not torch.compiler.is_compiling():
        return True
    return _has_static_value is not None and _has_static_value(size)


@torch.compiler.assume_constant_result
def planned(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    device: str,
    channels_first: bool = False,
) -> str:
    """The name in `polyattn.lowering.FUNCTIONS` of the lowered plan for an input shape.

    Args:
        sizes: the sizes that are given, as pairs.
        position_sizes, lengths: the sizes of the input's positions and their numbers.
        batch: the batch; an empty one is planned as 1.
        objective: "training" gives a function whose gradients the planned backward pass makes.
        device: the type of the device, for the cost model.
        channels_first: whether the inputs are (B, ..., C) views of tensors that lie in memory as (B, C, ...).

    Raises:
        SizeError: the lengths contradict the given sizes.
    """
    return _planned(
        spec, sizes, position_sizes, tuple(map(int, lengths)), max(1, int(batch)), objective, device, channels_first
    )


@cache
def _planned(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    device: str,
    channels_first: bool,
) -> str:
    known = dict(sizes)
    for name, length in zip(position_sizes, lengths, strict=True):
        number = int(name) if name.isdigit() else known.setdefault(name, length)
        if number != length:
            raise SizeError(f"size {name} is {number} for this layer, but {length} in the input")
    made = plan(spec, known, objective, batch=batch, device=device if device in DEVICES else "cpu")
    if backward_pays(made, device if device in DEVICES else "cpu"):
        return keep(training_function(made, channels_first=channels_first, device=device))
    return keep(partial(type(lower(made, channels_first=channels_first, device=device)).forward, None))


def backward_pays(made: Plan, device: str) -> bool:
    """Whether the planned backward pass is worth its steps, each a call from Python, which autograd's are not.

    It is where it takes less arithmetic than autograd's, and where the layer is so large that the steps do not count
    while less is kept.
    """
    if made.backward is None:
        return False
    if made.backward_macs <= FEWER * 2 * made.macs:
        return True
    model = calibrated(device)
    seconds = model.seconds(made.graph) + model.seconds(made.backward.graph)
    return CALLS * model.step_seconds * len(made.backward_steps) <= NEGLIGIBLE * seconds
