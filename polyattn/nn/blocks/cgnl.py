"""`CGNL`: the compact generalized non-local block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.nn.block import Block, inner_width, matrix, part_of, pointwise, settling
from polyattn.nn.factory import as_factory
from polyattn.nn.plain import is_plain, precision
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first, positions_first

GROUPED = (
    "theta[N,D]; phi[N,D]; value[N,D]; where D = G*M; y[a,(g m)] = 1/N/M * theta[a,(g m)]*phi[e,(g k)]*value[e,(g k)]"
)
"""The attention between the convolutions, for modules that have to be called."""


class CGNL(Block):
    """Compact generalized NL: `Z = X + GN(z(vec(Θ) (vec(Φ)ᵀ vec(G))))` in each group of channels.

    Source: Yue et al., Compact Generalized Non-local Network, 2018, section 3, with the dot-product kernel; grouped
    convolution `z` and group norm as in the authors' code.

    Prefer it where correlations across channels matter and memory is short: its context is one number per group.

    Args:
        channels: channels of the input and the output.
        reduction: channels / inner channels.
        groups: number of channel groups; each attends within itself.
        scale: whether to divide the context by the root of its number of summands.
        dim: the number of spatial axes.
        zero_init: whether the group norm's scale starts at 0, which makes the block the identity.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number, such as groups that do not divide the channels; at call time, an input of another
            shape or dtype.

    >>> import torch
    >>> CGNL(8, groups=2)(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        groups: int = 8,
        *,
        scale: bool = False,
        dim: int = 2,
        zero_init: bool = True,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        inner = inner_width(channels, reduction)
        part_of("channels", channels, "groups", groups)
        self.group_width = part_of("inner channels", inner, "groups", groups)
        self.groups, self.scale = groups, scale
        self.t, self.p, self.g = (pointwise(dim, channels, inner) for _ in range(3))
        self.z = pointwise(dim, inner, channels, groups=groups)
        self.gn = nn.GroupNorm(groups, channels)
        if zero_init:
            nn.init.zeros_(self.gn.weight)
        self.spec = catalog.cgnl(mean=False, grouped=True)
        # The plan computes means, which fit into 16 bits; `forward` scales them to sums in the norm's precision.
        sizes = {"C": channels, "D": inner, "G": groups}
        self._attended = SpecFunction(
            catalog.cgnl(mean=True, grouped=True), sizes, objective, memory_limit=memory_limit
        )
        self._grouped = SpecFunction(Spec(GROUPED), sizes, objective, memory_limit=memory_limit)

    def spec_parameters(self) -> dict[str, Tensor]:
        # A grouped convolution stores (outputs, inputs / groups); the specification reads one matrix per group.
        last = matrix(self.z).transpose(0, 1).unflatten(0, (self.groups, -1)).transpose(1, 2)
        return {"wt": matrix(self.t), "wp": matrix(self.p), "wg": matrix(self.g), "wz": last}

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        summands = self.positions.count(x) * self.group_width
        factor = summands**0.5 if self.scale else summands
        if is_plain(self.t, self.p, self.g, self.z):
            y = self._attended({"x": positions_first(x, 1), **self.spec_parameters()})
            y = channels_first(y.to(precision(self.gn, y)) * factor, x, 1)
        else:
            layers = {"theta": self.t, "phi": self.p, "value": self.g}
            y = self._grouped({name: positions_first(layer(x), 1) for name, layer in layers.items()})
            # `z` may be any module, so the factor cannot follow it.
            y = self.z(channels_first(y * factor, x, 1))
        return (x + self.gn(y)).to(x.dtype)
