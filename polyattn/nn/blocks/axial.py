"""`Axial`: axial attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.nn.block import AXES, Block, inner_width, matrix, one_of, pointwise, settling
from polyattn.nn.factory import as_factory
from polyattn.nn.fused import attention
from polyattn.nn.parts import part
from polyattn.runtime.function import SpecFunction


class Axial(Block):
    """Axial attention: one axis after the other, `X ← X + gamma Y`, Y attending along the axis.

    Source: Ho et al., Axial Attention in Multidimensional Transformers, 2019; without position encodings, which
    Wang et al., Axial-DeepLab, 2020 add. Each axis has its own query, key, value and gamma.

    Prefer it to a non-local block on large maps: each position has H + W similarities instead of HW, and after all
    axes any two positions have met.

    Args:
        channels: channels of the input, the values and the output.
        reduction: channels / channels of queries and keys.
        normalisation: "softmax" of the similarities, divided by the root of a query's channels; or "scaling", a mean
            over the axis: a polynomial, and linear in the positions.
        dim: the number of spatial axes.
        gamma: initial value of each axis's gamma. With 0 the block starts as the identity; terms over two axes then
            have zero gradient at first, as their factor is the product of both gammas.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> Axial(8)(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        *,
        normalisation: str = "softmax",
        dim: int = 2,
        gamma: float = 0.0,
        objective: str = "training",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        self.inner_channels = inner_width(channels, reduction)
        self.normalisation = one_of("normalisation", normalisation, ("softmax", "scaling"))
        self.axes = nn.ModuleList(_projections(dim, channels, self.inner_channels) for _ in range(dim))
        self.gamma = nn.Parameter(torch.full((dim,), float(gamma)))
        self.spec = _specification(dim, normalisation == "softmax")
        # One function serves all axes: `_along` moves the attended axis to the width of (B, lines, length, channels).
        lines = part(catalog.axial("width", mean=True), "y", "query", "key", "value")
        self._lines = SpecFunction(lines, None, objective)

    def spec_parameters(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, layers in enumerate(self.axes, 1):
            assert isinstance(layers, nn.ModuleDict)
            # The softmax form divides similarities by this root inside fused attention; the equations carry it in the
            # query's weight.
            scale = self.inner_channels**-0.5 if self.normalisation == "softmax" else 1.0
            found[f"wq{number}"] = scale * matrix(layers["query"])
            found |= {f"w{name[0]}{number}": matrix(layers[name]) for name in ("key", "value")}
            found[f"gamma{number}"] = self.gamma[number - 1]
        return found

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        for number, layers in enumerate(self.axes):
            assert isinstance(layers, nn.ModuleDict)
            x = x + self.gamma[number] * self._along(x, number + 2, layers)
        return x

    def _mixing(self, axis: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
        """Return the function that mixes lines along an axis."""
        return self._lines

    def _along(self, x: Tensor, axis: int, layers: nn.ModuleDict) -> Tensor:
        """Apply attention along one axis, on (B, lines, length, channels)."""
        maps = (layers[name](x).movedim((1, axis), (-1, -2)) for name in ("query", "key", "value"))
        query, key, value = (y.flatten(1, -3) if self.dim > 1 else y.unsqueeze(1) for y in maps)
        if self.normalisation == "softmax":
            # Softmax is no polynomial: fused attention instead of a plan.
            y = attention(query, key, value)
        else:
            y = self._mixing(axis)({"query": query, "key": key, "value": value})
        others = [length for number, length in enumerate(x.shape[2:], 2) if number != axis]
        y = y.unflatten(1, others) if self.dim > 1 else y.squeeze(1)
        return y.movedim((-1, -2), (1, axis))


def _projections(dim: int, channels: int, inner: int) -> nn.ModuleDict:
    widths = {"query": inner, "key": inner, "value": channels}
    return nn.ModuleDict({name: pointwise(dim, channels, width) for name, width in widths.items()})


@cache
def _specification(dim: int, softmax: bool) -> Spec:
    """Return the whole block as equations; `z1`, `z2`, ... are the results after each axis."""
    letters, others = "ijk"[:dim], "uvw"[:dim]
    at = ",".join(letters)
    lines, z = [f"x[{','.join(AXES[dim])},C]; where r : R"], "x"
    for number, (letter, other, size) in enumerate(zip(letters, others, AXES[dim], strict=True), 1):
        # Only the attended axis gets a second index; all other positions stay on their line.
        there = at.replace(letter, other)
        similarity = f"query{number}[{at},r]*key{number}[{there},r]"
        lines += [
            f"query{number}[{at},r] = {z}[{at},d]*wq{number}[d,r]",
            f"key{number}[{at},r] = {z}[{at},f]*wk{number}[f,r]",
            f"value{number}[{at},b] = {z}[{at},h]*wv{number}[h,b]",
            f"similarity{number}[{at},{other}] = {f'softmax[{other}]({similarity})' if softmax else similarity}",
            f"z{number}[{at},b] = {z}[{at},b] + {'' if softmax else f'1/{size} * '}"
            f"gamma{number}*similarity{number}[{at},{other}]*value{number}[{there},b]",
        ]
        z = f"z{number}"
    return Spec("\n".join(lines))
