"""A counter of the floating-point operations run by torch."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count


def flop_counter() -> FlopCounterMode:
    """Return torch's silent counter of matrix products, convolutions and fused attention; 2 FLOPs are one MAC.

    Torch 2.6 does not count fused attention on the CPU, so its formula is added there.
    """
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    missing = {} if fused in flop_registry else {fused: _attention}
    return FlopCounterMode(display=False, custom_mapping=missing)


def _attention(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **options: object
) -> int:
    return sdpa_flop_count(query, key, value)
