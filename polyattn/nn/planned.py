"""Lowered plans by input shape, made once per process."""

from __future__ import annotations

from functools import cache, partial

import torch

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import keep, lower, training_function
from polyattn.planning import DEVICES, plan


@torch.compiler.assume_constant_result
def planned(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    device: str,
) -> str:
    """The name in `polyattn.lowering.FUNCTIONS` of the lowered plan for an input shape.

    Args:
        sizes: the sizes that are given, as pairs.
        position_sizes, lengths: the sizes of the input's positions and their numbers.
        batch: the batch; an empty one is planned as 1.
        objective: "training" gives a function whose gradients the planned backward pass makes.
        device: the type of the device, for the cost model.

    Raises:
        SizeError: the lengths contradict the given sizes.
    """
    return _planned(spec, sizes, position_sizes, tuple(map(int, lengths)), max(1, int(batch)), objective, device)


@cache
def _planned(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    device: str,
) -> str:
    known = dict(sizes)
    for name, length in zip(position_sizes, lengths, strict=True):
        number = int(name) if name.isdigit() else known.setdefault(name, length)
        if number != length:
            raise SizeError(f"size {name} is {number} for this layer, but {length} in the input")
    made = plan(spec, known, objective, batch=batch, device=device if device in DEVICES else "cpu")
    if made.backward is not None:
        return keep(training_function(made))
    return keep(partial(type(lower(made)).forward, None))
