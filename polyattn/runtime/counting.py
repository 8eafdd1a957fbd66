"""A counter of the floating-point operations run by torch."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from polyattn.lowering.multiplying import MISSING


def flop_counter() -> FlopCounterMode:
    """Return torch's silent counter of matrix products, convolutions and fused attention; 2 FLOPs are one MAC."""
    return FlopCounterMode(display=False, custom_mapping=dict(MISSING))
