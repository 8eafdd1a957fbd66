"""`A2`: the double attention block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.nn.block import BATCH_NORMS, Block, inner_width, matrix, one_of, pointwise, settling, whole
from polyattn.nn.factory import as_factory
from polyattn.nn.parts import part
from polyattn.nn.plain import is_plain
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first, positions_first

DISTRIBUTED = "features[N,V]; gather[N,R]; distribute[N,R]; y[a,s] = {}features[e,s]*gather[e,r]*distribute[a,r]"
"""The attention in front of `extend`, for a module that has to be called."""


class A2(Block):
    """Double attention: `Z = X + BN(extend(gather, then distribute))`.

    Source: Chen et al., A²-Nets: Double Attention Networks, 2018, Eq. 6 and Figure 2: features `phi` are gathered
    through the maps `theta`, normalised over positions, and distributed by the vectors `rho`, normalised over maps.

    Prefer it where a cost linear in the positions is needed; its core is that of `EfficientNL` with one head.

    Args:
        channels: channels of the input and the output.
        reduction: channels / channels of the gathered features.
        maps: number of attention maps; by default the number of gathered features.
        normalisation: "softmax", or "scaling" by the number of positions.
        dim: the number of spatial axes.
        bias: whether the projections to features, maps and vectors have biases.
        zero_init: whether the batch norm's scale starts at 0, which makes the block the identity.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> import torch
    >>> A2(8)(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        maps: int | None = None,
        *,
        normalisation: str = "softmax",
        dim: int = 2,
        bias: bool = True,
        zero_init: bool = True,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        inner = inner_width(channels, reduction)
        maps = inner if maps is None else whole("maps", maps)
        self.normalisation = one_of("normalisation", normalisation, ("softmax", "scaling"))
        self.phi = pointwise(dim, channels, inner, bias=bias)
        self.theta = pointwise(dim, channels, maps, bias=bias)
        self.rho = pointwise(dim, channels, maps, bias=bias)
        self.extend = pointwise(dim, inner, channels)
        self.bn = BATCH_NORMS[dim](channels)
        if zero_init:
            nn.init.zeros_(self.bn.weight)
        self.spec = catalog.a2_net(softmax=normalisation == "softmax")
        # Softmax stands between two polynomials; the plan covers the one after it.
        cut = part(self.spec, "y", "features", "gather", "distribute")
        self._attended = SpecFunction(cut, {"C": channels}, objective, memory_limit=memory_limit)
        self._given_back = SpecFunction(
            Spec(DISTRIBUTED.format("" if normalisation == "softmax" else "1/N * ")), memory_limit=memory_limit
        )

    def spec_parameters(self) -> dict[str, Tensor]:
        convolutions = {"wphi": self.phi, "wtheta": self.theta, "wrho": self.rho, "wo": self.extend}
        return {name: matrix(convolution) for name, convolution in convolutions.items()}

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        features, gather, distribute = (layer(x).flatten(2) for layer in (self.phi, self.theta, self.rho))
        if self.normalisation == "softmax":
            # The softmax over positions reduces over shards; the one over maps is local to a position.
            gather, distribute = self.positions.softmax(gather, 2), torch.softmax(distribute, 1)
        tensors = {"features": features, "gather": gather, "distribute": distribute}
        rows = {name: positions_first(tensor, 1) for name, tensor in tensors.items()}
        if is_plain(self.extend):
            y = channels_first(self._attended({**rows, "wo": matrix(self.extend)}), x, 1)
        else:
            y = self.extend(channels_first(self._given_back(rows), x, 1))
        return x + self.bn(y).to(x.dtype)
