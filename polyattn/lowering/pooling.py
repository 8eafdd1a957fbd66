"""Maxima and minima over windows, axis by axis over strided views, with their vector-Jacobian product.

A box's maximum is the maximum along one axis after the other, so k offsets on each of d axes cost d*k passes over the
tensor instead of k**d, and no place is written once for each offset. Places outside are left out. The gradient goes to
the largest entries of a window in equal parts, as that of a maximum over whole axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyattn.lowering.convolutions import Letters, Relation
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.lowering.pullbacks import max_backward, min_backward
from polyattn.lowering.strided import Slices, Strided, is_plain

Sizes = tuple[tuple[str, int], ...]


def window_extreme(value: Tensor, function: str, letters: str, relations: tuple[Relation, ...], sizes: Sizes) -> Tensor:
    """Return the largest entries of windows, or the smallest for "min".

    Args:
        function: "max" or "min".
        letters: of the tensor and of the result, as in an einsum; letters of relations in neither are used up.
        relations, sizes: where the tensor is read, and the lengths of the relations' letters.
    """
    if not is_plain(value):
        windows, axes = _unfolded(value, function, letters, relations, sizes)
        return windows if not axes else windows.amax(axes) if function == "max" else windows.amin(axes)
    if not (torch.is_grad_enabled() and value.requires_grad):
        return _Windows.of(value, letters, relations, sizes).extreme(value, function)
    return _Extreme.apply(value, function, letters, relations, sizes)


def window_extreme_backward(
    gradient: Tensor, value: Tensor, function: str, letters: str, relations: tuple[Relation, ...], sizes: Sizes
) -> Tensor:
    """Return the vector-Jacobian product of `window_extreme`, for a gradient with the axes of its result."""
    if is_plain(value) and is_plain(gradient):
        return _Windows.of(value, letters, relations, sizes).pulled_back(gradient, value, function)
    windows, axes = _unfolded(value, function, letters, relations, sizes)
    spread = gradient.reshape([*gradient.shape, *[1] * len(axes)])
    parts = (max_backward if function == "max" else min_backward)(spread, windows, axes) if axes else gradient
    names, output = letters.split("->")
    return neighbourhood(parts, None, f"{output}{_used_up(output, relations)}->{names}", relations, sizes)


class _Extreme(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *way: Any) -> Tensor:
        ctx.save_for_backward(value)
        ctx.way = way
        return _Windows.of(value, *way[1:]).extreme(value, way[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (value,) = ctx.saved_tensors
        return window_extreme_backward(gradient, value, *ctx.way), *(None for _ in ctx.way)


def _used_up(output: Letters, relations: tuple[Relation, ...]) -> Letters:
    return "".join(i for _, terms, _ in relations for i, _ in terms if i not in output)


def _unfolded(
    value: Tensor, function: str, letters: str, relations: tuple[Relation, ...], sizes: Sizes
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the windows' places with axes of their own, infinite where they are left out, and these axes."""
    names, output = letters.split("->")
    terms = "".join(i for _, pairs, _ in relations for i, _ in pairs)
    whole = output + _used_up(output, relations)
    windows = neighbourhood(value, None, f"{names}->{whole}", relations, sizes)
    positions = "".join(p for p, _, _ in relations)
    ones = value.new_ones([dict(sizes)[p] for p in positions])
    inside = neighbourhood(ones, None, f"{positions}->{''.join(i for i in whole if i in terms)}", relations, sizes)
    for axis, letter in enumerate(whole):
        inside = inside if letter in terms else inside.unsqueeze(axis)
    return windows.masked_fill(inside == 0, _worst(function)), tuple(range(len(output), len(whole)))


def _worst(function: str) -> float:
    return -torch.inf if function == "max" else torch.inf


@dataclass(frozen=True)
class _Windows:
    """The windows of a tensor: its axes that are read at combinations, and the order of the result's axes."""

    axes: tuple[Strided, ...]
    order: tuple[int, ...]
    lost: tuple[int, ...]

    @classmethod
    def of(cls, value: Tensor, letters: str, relations: tuple[Relation, ...], sizes: Sizes) -> _Windows:
        names, output = letters.split("->")
        lengths = dict(sizes)
        axes = tuple(Strided.of(names.index(r[0]), r, output, lengths) for r in relations)
        for relation in relations:
            position, terms, _ = relation
            kept = next((i for i, _ in terms if i in output), "")
            names = names.replace(position, kept or "-", 1)
        lost = tuple(k for k, i in enumerate(names) if i == "-")
        left = [i for i in names if i != "-"]
        return cls(axes, tuple(left.index(i) for i in output), lost)

    def extreme(self, value: Tensor, function: str) -> Tensor:
        for axis in self.axes:
            value = _along(axis, axis.turned(value), function)
        return self.arranged(value)

    def arranged(self, value: Tensor) -> Tensor:
        return value.squeeze(self.lost).permute(self.order) if self.lost else value.permute(self.order)

    def pulled_back(self, gradient: Tensor, value: Tensor, function: str) -> Tensor:
        """Return the gradient at the extreme entries, in equal parts among ties.

        Each entry of a maximum along the first axes stands for as many ties as it has itself: their numbers are added
        up along the next axis, the gradient is divided once by the number of all, and then goes back along each axis.
        """
        wide = torch.promote_types(value.dtype, torch.float32)
        tensor = value.detach()
        count = ties = value.new_ones((), dtype=wide).expand(value.shape)
        levels: list[tuple[Tensor, Tensor]] = []
        for axis in self.axes:
            tensor, ties = axis.turned(tensor), axis.turned(count)
            made = _along(axis, tensor, function)
            count = torch.zeros_like(made, dtype=wide)
            _add_where(axis, made, tensor, lambda to, at, count=count, ties=ties: (count[to], ties[at]))
            levels.append((tensor, made))
            tensor, ties = made, count
        back = gradient.permute([self.order.index(k) for k in range(len(self.order))])
        for axis in self.lost:
            back = back.unsqueeze(axis)
        # A window with a number that is none has no entry equal to its maximum.
        back = back.to(wide) / count.clamp_min_(1)
        del count, ties
        for axis in reversed(self.axes):
            tensor, made = levels.pop()
            below = torch.zeros_like(tensor, dtype=wide)
            _add_where(axis, made, tensor, lambda to, at, below=below, back=back: (below[at], back[to]))
            back = axis.turned(below)
            del below
        return back.to(value.dtype)


def _add_where(
    axis: Strided, made: Tensor, tensor: Tensor, pick: Callable[[Slices, Slices], tuple[Tensor, Tensor]]
) -> None:
    """Add, for each offset, to the first of two views the second wherever a tensor's entry is the extreme one.

    As numbers, into one tensor: torch compares several times as fast as into booleans.
    """
    room: Tensor | None = None
    for to, at in axis.slices:
        total, given = pick(to, at)
        # A recorded pass reads every one of them again.
        if room is None or room.shape != given.shape or (torch.is_grad_enabled() and given.requires_grad):
            room = torch.empty_like(given, requires_grad=False)
        with torch.no_grad():
            torch.eq(tensor[at], made[to], out=room)
        total.addcmul_(given, room)


def _along(axis: Strided, value: Tensor, function: str) -> Tensor:
    """Return the extreme entries along one axis, laid out in memory as the tensor is."""
    result = axis.empty(value, axis.length).fill_(_worst(function))
    operation = torch.maximum if function == "max" else torch.minimum
    with torch.no_grad():
        for to, at in axis.slices:
            operation(result[to], value[at], out=result[to])
    return result
