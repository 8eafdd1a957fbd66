"""`BATBlock`: the residual block around a bilinear attentional transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn.errors import SizeError
from polyattn.nn.block import Block, inner_width, settling
from polyattn.nn.blocks.bat_transform import BATransform
from polyattn.nn.conv_norm import ConvNormReLU
from polyattn.nn.factory import as_factory
from polyattn.nn.pointwise_conv import turned_if_few
from polyattn.runtime.layouts import laid_out_as


class BATBlock(Block):
    """BAT-Block `x + dropout(conv2(transform(conv1(x))))` (Chi et al., section 3.2).

    `conv1` reduces the channels, `transform` is a `BATransform`, `conv2` restores them; both are 1x1 convolutions with
    batch norm and ReLU.

    Args:
        channels: channels of the input and the output.
        reduction: channels / inner channels.
        inner_channels: the inner channels themselves, instead of `reduction`.
        dropout: the probability to drop a channel of the result in training.
        bias: whether the 1x1 convolutions before batch norms have biases.
        block_size, groups, predictor_channels, normalisation, downsample, larger_maps, dim, temporal_groups,
            temporal_size: see `BATransform`.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, H, W) or (B, channels, T, H, W) to the same, of any size; contiguous or channels-last, which is
        kept.

    Raises:
        SizeError: contradictory arguments; at call time an input of another shape or dtype.

    >>> import torch
    >>> BATBlock(16, block_size=7, groups=4)(torch.zeros(2, 16, 25, 42)).shape
    torch.Size([2, 16, 25, 42])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 2,
        inner_channels: int | None = None,
        block_size: int | tuple[int, int] = 7,
        groups: int = 4,
        predictor_channels: int | None = None,
        normalisation: str = "l1",
        downsample: bool = False,
        larger_maps: str = "blocks",
        dropout: float = 0.2,
        bias: bool = True,
        dim: int = 2,
        temporal_groups: int = 0,
        temporal_size: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim, (2, 3))
        self.inner_channels = inner = inner_width(channels, reduction, inner_channels)
        if not 0 <= dropout < 1:
            raise SizeError(f"dropout must be a probability below 1, not {dropout!r}")
        self.conv1 = ConvNormReLU(dim, channels, inner, bias)
        self.transform = BATransform(
            inner,
            block_size=block_size,
            groups=groups,
            predictor_channels=predictor_channels,
            normalisation=normalisation,
            downsample=downsample,
            larger_maps=larger_maps,
            bias=bias,
            dim=dim,
            temporal_groups=temporal_groups,
            temporal_size=temporal_size,
        )
        self.transform.conv2.ends = False
        self.conv2 = ConvNormReLU(dim, inner, channels, bias)
        self.dropout = (nn.Dropout2d if dim == 2 else nn.Dropout3d)(dropout)
        self.spec = self.transform.spec
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to Kaiming normal weights, biases 0, batch norms 1 and 0; see `BATransform.reset_parameters`."""
        for layer in (self.conv1, self.conv2):
            layer.reset_parameters()
        self.transform.reset_parameters()

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, [T,] H, W) to the same shape."""
        self.check(x)
        # One expression: a local name would keep an intermediate map alive until the end.
        return x + laid_out_as(self.dropout(self.conv2(self.transform(self.conv1(turned_if_few(x))))), x).to(x.dtype)

    def spec_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of the transform's `spec`."""
        return self.transform.spec_parameters()
