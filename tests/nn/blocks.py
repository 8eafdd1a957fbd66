"""The blocks of `polyattn.nn`, each small enough to differentiate numerically: what test_blocks.py holds of all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import polyattn as pa


@dataclass(frozen=True)
class Case:
    """A block at its small size, and as large as the tests of half precision have it (None: another form has it).

    Attributes:
        make, channels, positions: the small block and its input.
        large, large_channels, large_sides: the large block and its input, of a million positions where no sides are
            given.
        halves: the dtypes that hold its values there.
        thorough: compile its backward pass too, and let the ONNX exporter optimise it, which takes twice the time. The
            further forms of a block are compiled forward and exported as they are.
    """

    make: Callable[[], nn.Module]
    channels: int
    positions: tuple[int, ...] = (4, 6)
    large: Callable[[], nn.Module] | None = None
    large_channels: int = 2
    large_sides: tuple[int, ...] | None = None
    halves: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16)
    thorough: bool = True

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


BFLOAT16 = (torch.bfloat16,)


def tamed(block: nn.Module, most: float) -> nn.Module:
    """The block with weights of at most that size, where the results would be too large for 16 bits or, as exponents
    of size 900, not known to within 1."""
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.clamp_(-most, most)
    return block


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
        thorough=False,
    ),
    "NonLocal, dot product, heads, sub-sampled": Case(
        lambda: pa.nn.NonLocal(4, similarity="dot_product", reduction=1, heads=2, sub_sample=2, zero_init=False),
        4,
        thorough=False,
    ),
    "NonLocal, concatenation, 3D": Case(
        lambda: pa.nn.NonLocal(2, similarity="concatenation", norm=False, zero_init=False, sub_sample=2, dim=3),
        2,
        (2, 2, 4),
        large=lambda: pa.nn.NonLocal(2, similarity="concatenation", zero_init=False, sub_sample=125, dim=3),
        thorough=False,
    ),
    "NonLocal, gaussian, heads": Case(
        lambda: pa.nn.NonLocal(4, similarity="gaussian", reduction=1, heads=2, scale=0.3, zero_init=False),
        4,
        thorough=False,
    ),
    "NonLocal, gaussian, 1D": Case(
        lambda: pa.nn.NonLocal(4, similarity="gaussian", sub_sample=2, pool="after", zero_init=False, dim=1),
        4,
        (7,),
        large=lambda: pa.nn.NonLocal(2, similarity="gaussian", sub_sample=50_000, zero_init=False, dim=1),
        thorough=False,
    ),
    "PolyNL": Case(lambda: pa.nn.PolyNL(4, beta=0.7), 4, large=lambda: pa.nn.PolyNL(2, beta=0.7)),
    "PolyNL, reduced, 3D": Case(
        lambda: pa.nn.PolyNL(4, 2, beta=0.7, dim=3),
        4,
        (2, 2, 3),
        large=lambda: tamed(pa.nn.PolyNL(2, 2, beta=0.7, dim=3), 0.5),
        thorough=False,
    ),
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
        thorough=False,
    ),
    "TESA": Case(lambda: pa.nn.TESA(4, alpha=0.5), 4, large=lambda: pa.nn.TESA(2, alpha=0.5), thorough=False),
    "TESA, softmax": Case(
        lambda: pa.nn.TESA(4, alpha=0.5, normalisation="softmax"),
        4,
        (3, 4),
        large=lambda: pa.nn.TESA(2, alpha=0.5, normalisation="softmax"),
        large_sides=(70, 70),  # 2.4 * 10^7 similarities of positions
        thorough=False,
    ),
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
        thorough=False,
    ),
    "BATransform, without biases": Case(
        lambda: awake(pa.nn.BATransform(4, block_size=2, groups=2, bias=False)),
        4,
        large=lambda: pa.nn.BATransform(2, block_size=7, groups=1, normalisation="softmax"),
        thorough=False,
    ),
    "BATransform, full resolution": Case(
        lambda: awake(pa.nn.BATransform(4, block_size=(4, 6), groups=2, normalisation="softmax")),
        4,
        thorough=False,
    ),
    "BATBlock": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=3, groups=1, reduction=1)),
        4,
        (5, 6),
        large=lambda: pa.nn.BATBlock(4, block_size=7, groups=2),
        large_channels=4,
    ),
    "BATBlock, k = 0": Case(lambda: awake(pa.nn.BATBlock(4, groups=0)), 4, thorough=False),
    "BATBlock, down-sampling": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=(2, 3), groups=2, normalisation="softmax", downsample=True)),
        4,
        large=lambda: pa.nn.BATBlock(4, block_size=7, groups=2, downsample=True),
        large_channels=4,
        thorough=False,
    ),
    "BATBlock, 3D": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=2, groups=1, dim=3, temporal_groups=2, temporal_size=2)),
        4,
        (3, 2, 4),
        large=lambda: pa.nn.BATBlock(4, block_size=7, groups=2, dim=3, temporal_groups=1, temporal_size=4),
        large_channels=4,
        thorough=False,
    ),
    "BATBlock, 3D, slid over a larger map": Case(
        lambda: awake(pa.nn.BATBlock(4, block_size=(3, 2), groups=2, dim=3, larger_maps="slide")),
        4,
        (2, 5, 3),
        thorough=False,
    ),
    "A2": Case(
        lambda: pa.nn.A2(4, 2, zero_init=False), 4, large=lambda: pa.nn.A2(2, 1, zero_init=False), thorough=False
    ),
    "A2, scaling, 3D": Case(
        lambda: pa.nn.A2(4, 2, 3, normalisation="scaling", bias=False, zero_init=False, dim=3),
        4,
        (2, 2, 3),
        large=lambda: pa.nn.A2(2, 1, normalisation="scaling", zero_init=False, dim=3),
        thorough=False,
    ),
    "GloRe": Case(
        lambda: pa.nn.GloRe(4, 1, 3, zero_init=False),
        4,
        large=lambda: pa.nn.GloRe(2, 1, zero_init=False),
        thorough=False,
    ),
    "GloRe, sums, 1D": Case(
        lambda: pa.nn.GloRe(4, 1, 3, mean=False, zero_init=False, dim=1),
        4,
        (7,),
        large=lambda: pa.nn.GloRe(2, 1, mean=False, zero_init=False, dim=1),
        halves=BFLOAT16,  # a node is of the size of 30^2 * 10^6
        thorough=False,
    ),
    "CGNL": Case(
        lambda: pa.nn.CGNL(4, 1, 2, zero_init=False),
        4,
        large=lambda: pa.nn.CGNL(4, 2, 2, zero_init=False),
        large_channels=4,
    ),
    "CGNL, scaled, 3D": Case(
        lambda: pa.nn.CGNL(4, 2, 1, scale=True, zero_init=False, dim=3),
        4,
        (2, 2, 3),
        large=lambda: pa.nn.CGNL(2, 1, 1, scale=True, zero_init=False, dim=3),
        thorough=False,
    ),
    "CrissCross": Case(
        lambda: started(pa.nn.CrissCross(4, 2)),
        4,
        (3, 4),
        large=lambda: tamed(started(pa.nn.CrissCross(2, 1)), 0.05),
        large_sides=(200, 200),  # 1.6 * 10^7 similarities, which one softmax takes together
    ),
    "CrissCross, scaling": Case(
        lambda: started(pa.nn.CrissCross(4, 2, 1, normalisation="scaling")),
        4,
        (3, 4),
        large=lambda: started(pa.nn.CrissCross(2, 1, 1, normalisation="scaling")),
        thorough=False,
    ),
    "CrissCross, scaling, twice": Case(
        lambda: started(pa.nn.CrissCross(4, 2, normalisation="scaling")),
        4,
        (3, 4),
        large=lambda: started(pa.nn.CrissCross(2, 1, normalisation="scaling")),
        halves=BFLOAT16,  # a cubic of a cubic: of the size of 30^9
        thorough=False,
    ),
    "Axial": Case(
        lambda: started(pa.nn.Axial(4)),
        4,
        (3, 4),
        large=lambda: started(pa.nn.Axial(2, dim=3)),
        large_sides=(100, 100, 100),  # a million positions, and as few similarities as three axes can have
    ),
    "Axial, scaling, 3D": Case(
        lambda: started(pa.nn.Axial(4, normalisation="scaling", dim=3)),
        4,
        (2, 2, 3),
        thorough=False,
    ),
    "Axial, scaling": Case(
        lambda: started(pa.nn.Axial(4, normalisation="scaling")),
        4,
        (3, 4),
        large=lambda: started(pa.nn.Axial(2, normalisation="scaling")),
        halves=BFLOAT16,  # a cubic of a cubic: of the size of 30^9
        thorough=False,
    ),
    "Axial, 1D": Case(
        lambda: started(pa.nn.Axial(4, dim=1)),
        4,
        (7,),
        large=lambda: started(pa.nn.Axial(2, normalisation="scaling", dim=1)),
        thorough=False,
    ),
}
"""Add a block here and every fact of test_blocks.py is checked of it."""

EVERY_KIND = [
    *(name for name, case in CASES.items() if case.thorough),
    *("TESA", "A2", "GloRe", "BATransform, without biases", "BATBlock, 3D", "NonLocal, gaussian, heads", "Axial, 1D"),
    "BATBlock, 3D, slid over a larger map",
]
"""A case of every block; with two heads in one, and a video and a row of positions in others."""


def nearly_still(make: Callable[[], nn.Module]) -> nn.Module:
    """A block whose rounds add next to nothing to their input."""
    block = make()
    for name, parameter in block.named_parameters():
        if name == "gamma":
            nn.init.constant_(parameter, 1e-4)
    return block


FLOAT16: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "GloRe, sums, 1D": (lambda: pa.nn.GloRe(2, 1, mean=False, zero_init=False, dim=1), (70,)),
    "CrissCross, scaling, twice": (
        lambda: nearly_still(lambda: pa.nn.CrissCross(2, 1, normalisation="scaling")),
        (1000, 1000),
    ),
    "Axial, scaling": (lambda: nearly_still(lambda: pa.nn.Axial(2, normalisation="scaling")), (1000, 1000)),
}
"""What float16 holds of the blocks whose values it does not hold otherwise: 30^2 * 70 < 65504, and a small gamma."""
