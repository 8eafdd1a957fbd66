"""The result of a pattern: a fused kernel in the place of steps of an evaluation graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from polyattn.algebra import Index
from polyattn.kernels import Cost
from polyattn.planning import Coefficient, Operand
from polyattn.planning.steps import ONE

Groups = tuple[tuple[Index, ...], ...]
"""The indices of each axis of a kernel's argument or result."""


@dataclass(frozen=True)
class Argument:
    """A value as a kernel's argument, times a coefficient and further values that lack whole groups of its indices."""

    operand: Operand
    groups: Groups
    coefficient: Coefficient = ONE
    factors: tuple[Operand, ...] = ()


def axes_of(argument: Argument) -> tuple[tuple[int, ...], ...]:
    """Return the axes of its value for each axis of an argument."""
    return tuple(tuple(argument.operand.indices.index(i) for i in group) for group in argument.groups)


@dataclass(frozen=True)
class Fusion:
    """A kernel in the place of steps.

    Attributes:
        kernel: its name.
        function: the function to call.
        value: number of the node whose value it returns.
        absorbed: nodes whose values need not be computed any more.
        arguments: in the function's order.
        result: the indices of each axis of its result.
        scale: coefficient for the function's argument "scale", or None.
        cost: multiply-accumulates and bytes, in float32.
        where: conditions for the function's argument "where", as booleans; `groups` are the axes they are spread to.
        causal: the function's argument "causal".
        spared: steps that the kernel makes unnecessary if no others read them.
    """

    kernel: str
    function: Callable[..., Tensor]
    value: int
    absorbed: frozenset[int]
    arguments: tuple[Argument, ...]
    result: Groups
    cost: Cost
    scale: Coefficient | None = None
    where: tuple[Argument, ...] = ()
    causal: bool = False
    spared: frozenset[int] = frozenset()

    @property
    def follows(self) -> bool:
        """Test if the result has the memory order of the first argument."""
        return self.kernel in ("bilinear", "project", "project_pair", "projected_query")
