"""What a pattern finds: a fused kernel in the place of steps of an evaluation graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from polyattn.algebra import Index
from polyattn.kernels import Cost
from polyattn.planning import Coefficient, Operand
from polyattn.planning.steps import ONE

Groups = tuple[tuple[Index, ...], ...]
"""The indices that make up each axis of a kernel's argument or result."""


@dataclass(frozen=True)
class Argument:
    """A value as a kernel takes it, times a coefficient."""

    operand: Operand
    groups: Groups
    coefficient: Coefficient = ONE


def axes_of(argument: Argument) -> tuple[tuple[int, ...], ...]:
    """Which axes of its value make up each axis of an argument."""
    return tuple(tuple(argument.operand.indices.index(i) for i in group) for group in argument.groups)


@dataclass(frozen=True)
class Fusion:
    """A kernel in the place of steps.

    Attributes:
        kernel: its name.
        function: what is called.
        value: the node whose value it makes.
        absorbed: nodes whose values are then not made.
        arguments: in the function's order.
        result: the indices of each axis of what it returns.
        scale: a coefficient that the function takes by the name of "scale", or None.
        cost: multiply-accumulates and bytes, in float32.
    """

    kernel: str
    function: Callable[..., Tensor]
    value: int
    absorbed: frozenset[int]
    arguments: tuple[Argument, ...]
    result: Groups
    cost: Cost
    scale: Coefficient | None = None

    @property
    def follows(self) -> bool:
        """Whether the result lies in memory as the first argument does."""
        return self.kernel in ("bilinear", "project", "project_pair", "projected_query")
