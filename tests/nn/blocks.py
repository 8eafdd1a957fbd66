"""The blocks of `polyattn.nn`, each small enough to differentiate numerically: what test_blocks.py holds of all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import polyattn as pa


@dataclass(frozen=True)
class Case:
    """A block at its small size, and how to make it for a million positions (None: it has no such form).

    `compiled` is False for a further form of a block whose code a compiler has seen in another: to compile it and run
    it in onnxruntime takes seconds.
    """

    make: Callable[[], nn.Module]
    channels: int
    positions: tuple[int, ...] = (4, 6)
    large: Callable[[], nn.Module] | None = None
    large_channels: int = 2
    compiled: bool = True

    def image(self, batch: int = 2, **options) -> Tensor:
        return torch.randn(batch, self.channels, *self.positions, **options)


def started(block: nn.Module) -> nn.Module:
    """The block off its initial values: there it is the identity, and a ReLU of zeros has no derivative."""
    for name, parameter in block.named_parameters():
        if name.split(".")[-1] == "gamma":
            nn.init.constant_(parameter, 0.7)
    for layer in block.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias, 0, 0.1)
    return block


def awake(module: nn.Module) -> nn.Module:
    """The module with batch norms that let most of what comes through the ReLUs behind them, away from their kinks."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.weight.uniform_(0.5, 1)
                layer.bias.uniform_(0.5, 1.5)
                layer.running_mean.uniform_(-0.2, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
    return module


CASES: dict[str, Case] = {
    "NonLocal": Case(
        lambda: pa.nn.NonLocal(4, reduction=1, heads=2, zero_init=False),
        4,
        large=lambda: pa.nn.NonLocal(2, sub_sample=250, zero_init=False),
    ),
    "NonLocal, dot product": Case(
        lambda: pa.nn.NonLocal(4, similarity="dot_product", zero_init=False),
        4,
        large=lambda: pa.nn.NonLocal(2, similarity="dot_product", zero_init=False),
    ),
    "NonLocal, concatenation, 3D": Case(
        lambda: pa.nn.NonLocal(2, similarity="concatenation", norm=False, zero_init=False, sub_sample=2, dim=3),
        2,
        (2, 2, 4),
    ),
    "NonLocal, gaussian, 1D": Case(
        lambda: pa.nn.NonLocal(4, similarity="gaussian", sub_sample=2, pool="after", zero_init=False, dim=1), 4, (7,)
    ),
    "PolyNL": Case(lambda: pa.nn.PolyNL(4, beta=0.7), 4, large=lambda: pa.nn.PolyNL(2, beta=0.7)),
    "PolyNL, reduced, 3D": Case(lambda: pa.nn.PolyNL(4, 2, beta=0.7, dim=3), 4, (2, 2, 3), compiled=False),
    "EfficientNL": Case(
        lambda: pa.nn.EfficientNL(4, heads=2),
        4,
        large=lambda: pa.nn.EfficientNL(2),
    ),
    "EfficientNL, scaling, 1D": Case(
        lambda: pa.nn.EfficientNL(4, 6, 4, 2, normalisation="scaling", bias=False, dim=1),
        4,
        (7,),
        large=lambda: pa.nn.EfficientNL(2, normalisation="scaling", dim=1),
        compiled=False,
    ),
    "TESA": Case(lambda: pa.nn.TESA(4, alpha=0.5), 4, large=lambda: pa.nn.TESA(2, alpha=0.5)),
    "TESA, softmax": Case(lambda: pa.nn.TESA(4, alpha=0.5, normalisation="softmax"), 4, (3, 4), compiled=False),
    "LatentGNN": Case(
        lambda: started(pa.nn.LatentGNN(4, [3, 2], 2)),
        4,
        large=lambda: started(pa.nn.LatentGNN(2, [3], 1)),
    ),
    "LatentGNN, symmetric, 3D": Case(
        lambda: started(pa.nn.LatentGNN(4, [3], 2, mode="symmetric", graph_conv=True, dim=3)),
        4,
        (2, 2, 3),
        large=lambda: started(pa.nn.LatentGNN(2, [3], 1, mode="symmetric", dim=3)),
        compiled=False,
    ),
    "BATransform, without biases": Case(
        lambda: awake(pa.nn.BATransform(4, block_size=2, groups=2, bias=False)),
        4,
        large=lambda: pa.nn.BATransform(2, block_size=7, groups=1, normalisation="softmax"),
    ),
    "BATBlock": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=3, groups=1, reduction=1)),
        4,
        (5, 6),
        large=lambda: pa.nn.BATBlock(4, block_size=7, groups=2),
        large_channels=4,
    ),
    "BATBlock, down-sampling": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=(2, 3), groups=2, normalisation="softmax", downsample=True)),
        4,
    ),
    "BATBlock, 3D": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=2, groups=1, dim=3, temporal_groups=2, temporal_size=2)),
        4,
        (3, 2, 4),
        large=lambda: pa.nn.BATBlock(4, block_size=7, groups=2, dim=3, temporal_groups=1, temporal_size=4),
        large_channels=4,
    ),
    "A2": Case(lambda: pa.nn.A2(4, 2, zero_init=False), 4, large=lambda: pa.nn.A2(2, 1, zero_init=False)),
    "A2, scaling, 3D": Case(
        lambda: pa.nn.A2(4, 2, 3, normalisation="scaling", bias=False, zero_init=False, dim=3),
        4,
        (2, 2, 3),
        large=lambda: pa.nn.A2(2, 1, normalisation="scaling", zero_init=False, dim=3),
        compiled=False,
    ),
    "GloRe": Case(lambda: pa.nn.GloRe(4, 1, 3, zero_init=False), 4, large=lambda: pa.nn.GloRe(2, 1, zero_init=False)),
    "GloRe, sums, 1D": Case(lambda: pa.nn.GloRe(4, 1, 3, mean=False, zero_init=False, dim=1), 4, (7,), compiled=False),
    "CGNL": Case(
        lambda: pa.nn.CGNL(4, 1, 2, zero_init=False),
        4,
        large=lambda: pa.nn.CGNL(4, 2, 2, zero_init=False),
        large_channels=4,
    ),
    "CGNL, scaled, 3D": Case(
        lambda: pa.nn.CGNL(4, 2, 1, scale=True, zero_init=False, dim=3), 4, (2, 2, 3), compiled=False
    ),
    "CrissCross": Case(lambda: started(pa.nn.CrissCross(4, 2)), 4, (3, 4)),
    "CrissCross, scaling": Case(
        lambda: started(pa.nn.CrissCross(4, 2, 1, normalisation="scaling")),
        4,
        (3, 4),
        large=lambda: started(pa.nn.CrissCross(2, 1, 1, normalisation="scaling")),
        compiled=False,
    ),
    "Axial": Case(lambda: started(pa.nn.Axial(4)), 4, (3, 4)),
    "Axial, scaling, 3D": Case(
        lambda: started(pa.nn.Axial(4, normalisation="scaling", dim=3)), 4, (2, 2, 3), compiled=False
    ),
    "Axial, 1D": Case(
        lambda: started(pa.nn.Axial(4, dim=1)),
        4,
        (7,),
        large=lambda: started(pa.nn.Axial(2, normalisation="scaling", dim=1)),
        compiled=False,
    ),
}
"""Add a block here and every fact of test_blocks.py is checked of it."""
