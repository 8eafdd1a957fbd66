"""Multiply-accumulates of single operations of torch, from the shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

aten = torch.ops.aten


def _attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **options: object
) -> int:
    return sdpa_flop_count(query, key, value)


FUSED = aten._scaled_dot_product_flash_attention_for_cpu
MISSING: dict[Any, Callable[..., int]] = {} if FUSED in flop_registry else {FUSED: _attention}
"""FLOPs of operations that torch's own counter leaves out: torch 2.6 does not count fused attention on the CPU."""
ENTRIES = (aten.mul, aten.mul_, aten.addcmul, aten.addcmul_)
"""Products entry by entry."""
VECTORS = (aten.mv, aten.dot, aten.vdot)
"""Products with a vector: as many as the first operand has entries."""


def macs_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the multiply-accumulates of an operation, as a dispatch mode sees it.

    Matrix products, convolutions and fused attention count by torch's formulas, half of their FLOPs; a product of two
    tensors entry by entry counts the entries of its result, scalar factors aside. All else counts 0, as in a plan.
    """
    packet = func._overloadpacket
    if packet in ENTRIES:
        return result.numel() if sum(isinstance(a, Tensor) for a in args) >= 2 else 0
    if packet in VECTORS:
        return args[0].numel()
    if packet in MISSING:
        return MISSING[packet](*(a.shape for a in args[:3])) // 2
    count = flop_registry.get(packet)
    return count(*args, **kwargs, out_val=result) // 2 if count is not None else 0
