"""Torch's form of each function of the language, and of a function of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from polyattn.language.functions import ENTRYWISE, TABLE


def step(x: Tensor) -> Tensor:
    """Return 1 where x is positive, else 0."""
    return (x > 0).to(x.dtype)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return torch's approximate GELU."""
    return torch.nn.functional.gelu(x, approximate="tanh")


def normal_pdf(x: Tensor) -> Tensor:
    """Return the density of the standard normal distribution."""
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_gate(x: Tensor) -> Tensor:
    """Return the factor of x in the approximate GELU."""
    return torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


def largest(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the share of each entry in the maximum over the axes: equal parts among ties, else 0."""
    found = (x == x.amax(axes, keepdim=True)).to(x.dtype)
    return found / found.sum(axes, keepdim=True)


_OWN = {f.__name__: f for f in (step, gelu_tanh, normal_pdf, gelu_gate, largest)}
OPERATIONS: Mapping[str, Callable[..., Any]] = {
    name: _OWN[name] if name in _OWN else reduce(getattr, row.torch.split(".")[1:], torch)
    for name, row in TABLE.items()
    if row.torch or name in _OWN
}
"""Torch's function for each function of the table that is one operation; `normalize` and sums are several."""


class OwnFunction:
    """A user's function under its name in the specification, as a node of a graph calls it."""

    __module__ = "polyattn.functions"

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]):
        self.__name__ = self.__qualname__ = name
        self.function = function

    def __call__(self, x: Tensor) -> Tensor:
        result = self.function(x)
        if not isinstance(result, Tensor) or result.shape != x.shape:
            from polyattn.errors import SizeError

            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise SizeError(
                f"`functions[{self.__name__!r}]` maps a tensor of shape {tuple(x.shape)} to {got}: "
                "it has to work entry by entry and keep the shape"
            )
        return result

    def __reduce__(self):
        return OwnFunction, (self.__name__, self.function)


class OwnPullback(OwnFunction):
    """The vector-Jacobian product of a user's function, by autograd."""

    def __call__(self, gradient: Tensor, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        made: Any = torch.func.vjp(self.function, x)
        return made[1](gradient.expand_as(x).to(x.dtype))[0]

    def __reduce__(self):
        return OwnPullback, (self.__name__, self.function)


def is_entrywise(function: str) -> bool:
    return function not in TABLE or TABLE[function].kind == ENTRYWISE
