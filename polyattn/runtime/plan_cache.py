"""Lowered plans by input shape, made once per process."""

from __future__ import annotations

from functools import cache

import torch
from torch.fx.experimental import symbolic_shapes

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import calibrated, differentiable, keep, kind, plan
from polyattn.lowering.functions import constant_result
from polyattn.planning import Device

NOMINAL_BATCH = 8
"""The batch that a plan is made for where a compiler keeps the batch symbolic. A plan computes every batch, and the
batch only weighs what is done once against what is done for each sample."""

_has_static_value = getattr(symbolic_shapes, "has_static_value", None)  # not in every torch that is supported


def is_static(size: int) -> bool:
    """Whether a size is a number: always, but for those that a compiler keeps symbolic."""
    if not torch.compiler.is_compiling():
        return True
    return _has_static_value is not None and _has_static_value(size)


@constant_result
def planned(
    text: str,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    device: str,
    channels_first: bool = False,
    dtype: str = "float32",
) -> str:
    """The name in `polyattn.lowering.FUNCTIONS` of the lowered plan for an input shape.

    Args:
        text: of the specification; compilers before torch 2.7 know texts as constants, and dataclasses not.
        sizes: the sizes that are given, as pairs.
        position_sizes, lengths: the sizes of the input's positions and their numbers.
        batch: the batch; an empty one is planned as 1.
        objective: "training" gives a function whose gradients the planned backward pass makes.
        device: the type of the device, for the cost model and its kernels.
        channels_first: whether the inputs are (B, ..., C) views of tensors that lie in memory as (B, C, ...).
        dtype: in which products are computed.

    Raises:
        SizeError: the lengths contradict the given sizes.
    """
    model = calibrated(kind(device), dtype)
    numbers = tuple(map(int, lengths))
    spec, batch = _spec(text), max(1, int(batch))
    return _planned(spec, sizes, position_sizes, numbers, batch, objective, model, channels_first, dtype)


@cache
def _spec(text: str) -> Spec:
    return Spec(text)


@cache
def _planned(
    spec: Spec,
    sizes: tuple[tuple[str, int], ...],
    position_sizes: tuple[str, ...],
    lengths: tuple[int, ...],
    batch: int,
    objective: str,
    model: Device,
    channels_first: bool,
    dtype: str,
) -> str:
    known = dict(sizes)
    for name, length in zip(position_sizes, lengths, strict=True):
        number = int(name) if name.isdigit() else known.setdefault(name, length)
        if number != length:
            raise SizeError(f"size {name} is {number} for this layer, but {length} in the input")
    made = plan(spec, known, objective, batch=batch, device=model, accuracy="written")
    return keep(differentiable(made, channels_first=channels_first, device=model, dtype=dtype))
