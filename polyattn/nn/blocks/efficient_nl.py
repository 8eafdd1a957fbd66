"""`EfficientNL`: the efficient attention block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.nn.block import Block, inner_width, matrix, one_of, part_of, pointwise, settling, whole
from polyattn.nn.factory import as_factory
from polyattn.nn.parts import part
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first


class EfficientNL(Block):
    """Efficient attention: `Z = X + ρq(Q) (ρk(K)ᵀ V) Wo`, the small context first.

    Source: Shen et al., Efficient Attention: Attention with Linear Complexities, 2021, Eq. 3 to 6 and section 3.4 for
    the heads; projections with biases, as in the authors' code.

    Prefer it for a softmax at a cost linear in the positions. With the scaling normalisation and without biases it is a
    non-local block of low rank (`catalog.e_nl`).

    Args:
        channels: channels of the input and the output.
        key_channels, value_channels: channels of all heads together; channels / reduction by default.
        heads: number of heads; each has its own part of the key and value channels.
        reduction: channels / inner channels, the default of both.
        normalisation: "softmax" of each position's query and, over positions, of each channel of the key; or "scaling",
            division by the number of positions.
        dim: the number of spatial axes.
        bias: whether the four projections have biases.
        zero_init: whether the last projection starts at 0, which makes the block the identity.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number, such as heads that do not divide the channels; at call time, an input of another
            shape or dtype.

    >>> import torch
    >>> block = EfficientNL(8, heads=2)
    >>> block(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 1,
        *,
        reduction: int = 2,
        normalisation: str = "softmax",
        dim: int = 2,
        bias: bool = True,
        zero_init: bool = False,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        keys = inner_width(channels, reduction, key_channels)
        values = inner_width(channels, reduction, value_channels)
        self.heads, self.zero_init = whole("heads", heads), zero_init
        self.normalisation = one_of("normalisation", normalisation, ("softmax", "scaling"))
        part_of("key channels", keys, "heads", heads)
        part_of("value channels", values, "heads", heads)
        self.keys = pointwise(dim, channels, keys, bias=bias)
        self.queries = pointwise(dim, channels, keys, bias=bias)
        self.values = pointwise(dim, channels, values, bias=bias)
        self.reprojection = pointwise(dim, values, channels, bias=bias)
        if zero_init:
            nn.init.zeros_(self.reprojection.weight)
            if self.reprojection.bias is not None:
                nn.init.zeros_(self.reprojection.bias)
        self.spec = catalog.e_nl(softmax=normalisation == "softmax", heads=True)
        self._attended = SpecFunction(
            part(self.spec, "attended", "query", "key", "value"), objective=objective, memory_limit=memory_limit
        )

    def spec_parameters(self) -> dict[str, Tensor]:
        convolutions = {"wq": self.queries, "wk": self.keys, "wv": self.values, "wo": self.reprojection}
        return {name: matrix(convolution) for name, convolution in convolutions.items()}

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        query, key, value = (self._heads(projection(x)) for projection in (self.queries, self.keys, self.values))
        if self.normalisation == "softmax":
            # The key's softmax runs over positions, so its maximum and sum are reduced over shards.
            query, key = torch.softmax(query, 2), self.positions.softmax(key, 3)
        query, key, value = (t.movedim(3, 1) for t in (query, key, value))
        y = self._attended({"query": query, "key": key, "value": value})
        return x + self.reprojection(channels_first(y.flatten(2), x, 1)).to(x.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        """Reshape (B, J*R, *spatial) to (B, J, R, N)."""
        return x.flatten(2).unflatten(1, (self.heads, -1))
