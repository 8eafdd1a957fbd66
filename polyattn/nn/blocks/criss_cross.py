"""`CrissCross`: criss-cross attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.nn.block import Block, inner_width, matrix, one_of, pointwise, settling, whole
from polyattn.nn.factory import as_factory
from polyattn.nn.parts import part
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first, positions_first


class CrissCross(Block):
    """Criss-cross attention: each position attends to its column and row, `Z = X + gamma Y`, several times over.

    Source: Huang et al., CCNet: Criss-Cross Attention for Semantic Segmentation, 2019, Eq. 1 and 2; projections with
    biases and a learnable gamma, as in the authors' code. One softmax normalises the H + W - 1 similarities of a
    position; the position itself counts once, in its row.

    Prefer it to a non-local block on large maps: HW (H + W) similarities instead of (HW)².

    Args:
        channels: channels of the input and the output.
        reduction: channels / channels of queries and keys.
        recurrence: number of applications with the same weights. Two connect any two positions.
        normalisation: "softmax"; or "scaling", means over the column and over the row, each with the position itself: a
            polynomial, and linear in the positions.
        dim: 2.
        gamma: initial value of gamma. With 0 the block starts as the identity; terms over two recurrences then train
            slowly, as their factor is the square of gamma.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, H, W) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> CrissCross(8)(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        reduction: int = 8,
        recurrence: int = 2,
        *,
        normalisation: str = "softmax",
        dim: int = 2,
        gamma: float = 0.0,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim, (2,))
        inner = inner_width(channels, reduction)
        self.recurrence = whole("recurrence", recurrence)
        self.normalisation = one_of("normalisation", normalisation, ("softmax", "scaling"))
        self.query_conv = pointwise(dim, channels, inner, bias=True)
        self.key_conv = pointwise(dim, channels, inner, bias=True)
        self.value_conv = pointwise(dim, channels, channels, bias=True)
        self.gamma = nn.Parameter(torch.full((1,), float(gamma)))
        self.spec = catalog.criss_cross(mean=normalisation == "scaling")
        self._column = SpecFunction(
            part(self.spec, "column", "query", "key"), None, objective, memory_limit=memory_limit
        )
        self._row = SpecFunction(part(self.spec, "row", "query", "key"), None, objective, memory_limit=memory_limit)
        self._attended = SpecFunction(
            part(self.spec, "y", "column", "row", "value"), None, objective, memory_limit=memory_limit
        )
        self._regrouped = SpecFunction(
            part(self.spec, "y", "query", "key", "value"), None, objective, memory_limit=memory_limit
        )

    def spec_parameters(self) -> dict[str, Tensor]:
        return {"wq": matrix(self.query_conv), "wk": matrix(self.key_conv), "wv": matrix(self.value_conv)}

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        self.check(x)
        for _ in range(self.recurrence):
            x = (x + self.gamma * self.attend(x)).to(x.dtype)
        return x

    @settling
    def attend(self, x: Tensor) -> Tensor:
        """Compute one application, without the residual."""
        query, key, value = (
            positions_first(layer(x), 2) for layer in (self.query_conv, self.key_conv, self.value_conv)
        )
        if self.normalisation == "scaling":
            # Without a softmax in between, one plan may reassociate the whole product.
            return channels_first(self._regrouped({"query": query, "key": key, "value": value}), x, 2)
        height, width = x.shape[2:]
        column, row = self._column({"query": query, "key": key}), self._row({"query": query, "key": key})
        # The position is in its column and in its row; minus infinity in the column makes it count once.
        itself = torch.eye(height, dtype=torch.bool, device=x.device).unsqueeze(1)
        weights = torch.softmax(torch.cat([column.masked_fill(itself, -torch.inf), row], 3), 3)
        column, row = weights.split([height, width], 3)
        return channels_first(self._attended({"column": column, "row": row, "value": value}), x, 2)
