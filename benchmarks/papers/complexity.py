"""The BAT paper's Table 1: complexity formulas of the blocks, beside the blocks here on the paper's feature maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sympy
import torch
from torch import nn

from polyattn.nn import BATBlock, NonLocal
from polyattn.runtime.counting import flop_counter

C, H, W, CP, K, S = sympy.symbols("C H W C' k s", positive=True, integer=True)

MAPS = ((512, 28), (1024, 14))
"""Channels and sides of Res3 and Res4 in a ResNet-50 at 224 pixels."""


@dataclass(frozen=True)
class Complexity:
    """A block of Table 1, at one feature map.

    Attributes:
        block: name of the block.
        channels, side: channels and side of the feature map.
        params_formula, macs_formula: formulas as printed.
        params, macs: values of the formulas for this map.
        weights: counted weights of the block's convolutions.
        parameters: counted parameters, with biases and batch norms.
        macs_here: multiply-accumulates of matrix products and convolutions as they run here.
    """

    block: str
    channels: int
    side: int
    params_formula: sympy.Expr
    macs_formula: sympy.Expr
    params: int
    macs: int
    weights: int
    parameters: int
    macs_here: int


FORMULAS = {
    "NL": (2 * C**2, 2 * C**2 * H * W + C * H**2 * W**2),
    "BAT": (
        C**2 * sympy.Rational(5, 4) + C * CP / 2 + 2 * CP * K * S**3,
        C**2 * H * W * sympy.Rational(5, 4) + C * H * W * (H + W) / 2 + C * CP * H * W / 2 + 2 * CP * K * S**3,
    ),
}
"""Parameters and multiply-accumulates, for inner channels of C / 2 (BAT, Table 1)."""


def complexity() -> Iterator[Complexity]:
    """Yield both blocks of Table 1 at both feature maps, with C' = k = 4 and s = 7 as in the paper's networks.

    >>> first = next(complexity())
    >>> first.block, first.params_formula, first.weights == first.params
    ('NL', 2*C**2, True)
    """
    for channels, side in MAPS:
        for name, make in (("NL", NonLocal), ("BAT", BATBlock)):
            params, macs = FORMULAS[name]
            sizes = {C: channels, H: side, W: side, CP: 4, K: 4, S: 7}
            # Shapes suffice for counting, so no memory is allocated.
            with torch.device("meta"):
                block = make(channels).eval()
                example = torch.zeros(1, channels, side, side)
            with torch.no_grad(), flop_counter() as counter:
                block(example)
            yield Complexity(
                block=name,
                channels=channels,
                side=side,
                params_formula=params,
                macs_formula=macs,
                params=int(params.subs(sizes)),
                macs=int(macs.subs(sizes)),
                weights=_weights(block),
                parameters=sum(p.numel() for p in block.parameters()),
                macs_here=counter.get_total_flops() // 2,
            )


def _weights(block: nn.Module) -> int:
    # More than one axis: weights of convolutions, without biases and batch norms, as in the formulas.
    return sum(p.numel() for name, p in block.named_parameters() if name.endswith("weight") and p.dim() > 1)
