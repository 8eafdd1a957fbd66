"""Products over neighbourhoods that are torch's convolutions: forward, transposed, or the gradient of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import torch
from torch.nn import functional

Letters = str
Relation = tuple[str, tuple[tuple[str, int], ...], int]
"""(p, ((i, s), (u, d)), n): the index p is at s*i + d*u + n."""


@dataclass(frozen=True)
class Task:
    """A product over neighbourhoods; letters name indices.

    Attributes:
        operands: the letters of one or two operands.
        output: the letters of the result.
        relations: each index p that is placed, with no p twice.
        sizes: (letter, length) of every index of the relations; all others are read from the operands.
    """

    operands: tuple[Letters, ...]
    output: Letters
    relations: tuple[Relation, ...]
    sizes: tuple[tuple[str, int], ...]

    @property
    def lengths(self) -> dict[str, int]:
        return dict(self.sizes)


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: position = stride*place + dilation*offset + start, all lengths known."""

    position: str
    place: str
    offset: str
    stride: int
    dilation: int
    start: int

    def turned(self) -> Axis:
        return replace(self, place=self.offset, offset=self.place, stride=self.dilation, dilation=self.stride)


@dataclass(frozen=True)
class Convolution:
    """A task as torch's convolution: "forward", "transposed", or "kernel" for the gradient of a kernel.

    Attributes:
        shared: letters of both operands and the result: groups.
        summed: letters of both operands alone.
        own: letters of the first operand and the result.
        other: letters of the second operand and the result.
        flipped: letters whose coefficient is negative, which run backwards.
    """

    task: Task
    kind: str
    axes: tuple[Axis, ...]
    shared: Letters
    summed: Letters
    own: Letters
    other: Letters
    flipped: Letters

    def run(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        task = self.task
        lengths = {
            i: n
            for t, names in zip((first, second), task.operands, strict=True)
            for i, n in zip(names, t.shape, strict=True)
        }
        lengths |= task.lengths
        groups = prod([lengths[i] for i in self.shared])
        first, second = (flip(t, names, self.flipped) for t, names in zip((first, second), task.operands, strict=True))
        positions, places, offsets = (
            "".join(getattr(a, n) for a in self.axes) for n in ("position", "place", "offset")
        )
        if self.kind == "forward":
            # (N, G*C, *positions), (G*O, C, *offsets) to (N, G*O, *places)
            x = arranged(first, task.operands[0], [self.own, self.shared + self.summed, *positions])
            w = arranged(second, task.operands[1], [self.shared + self.other, self.summed, *offsets])
            value = self.forward(x, w, groups)
            order = [self.own, self.shared + self.other, *places]
        elif self.kind == "transposed":
            x = arranged(first, task.operands[0], [self.own, self.shared + self.summed, *places])
            w = arranged(second, task.operands[1], [self.shared + self.summed, self.other, *offsets])
            value = self.transposed(x, w, groups)
            order = [self.own, self.shared + self.other, *positions]
        else:
            x = arranged(first, task.operands[0], [self.summed, self.shared + self.own, *positions])
            dy = arranged(second, task.operands[1], [self.summed, self.shared + self.other, *places])
            value = self.kernel(x, dy, groups)
            order = [self.shared + self.other, self.own, *offsets]
        made = "".join(order)
        if any(len(group) != 1 for group in order):
            value = value.reshape([lengths[i] for i in made])
        return flip(value, made, self.flipped).permute([made.index(i) for i in task.output])

    @property
    def stride(self) -> tuple[int, ...]:
        return tuple(a.stride for a in self.axes)

    @property
    def dilation(self) -> tuple[int, ...]:
        return tuple(a.dilation for a in self.axes)

    def padded(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Return a map and the zeros that a convolution puts on both sides of it to have the places' lengths."""
        sides = []
        for a in self.axes:
            n, m, k = (self.task.lengths[i] for i in (a.position, a.place, a.offset))
            sides.append((-a.start, a.stride * (m - 1) + a.dilation * (k - 1) + a.start + 1 - n))
        even = []
        for a, (before, after) in zip(self.axes, sides, strict=True):
            n, m, k = (self.task.lengths[i] for i in (a.position, a.place, a.offset))
            made = (n + 2 * before - a.dilation * (k - 1) - 1) // a.stride + 1
            even.append(before >= 0 and before >= after and made == m)
        if all(even):
            return x, tuple(before for before, _ in sides)
        return stretched(x, [(0, 0), (0, 0), *sides]), (0,) * len(sides)

    def forward(self, x: torch.Tensor, w: torch.Tensor, groups: int) -> torch.Tensor:
        x, padding = self.padded(x)
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.axes) - 1]
        return convolve(x, w, None, self.stride, padding, self.dilation, groups)

    def kernel(self, x: torch.Tensor, dy: torch.Tensor, groups: int) -> torch.Tensor:
        x, padding = self.padded(x)
        shape = [dy.shape[1], x.shape[1] // groups, *(self.task.lengths[a.offset] for a in self.axes)]
        # Its own place: torch differentiates it again, and allocates no kernel to read only its shape.
        like = x.new_zeros(1).expand(shape)
        zeros = [0] * len(self.axes)
        stride, dilation = list(self.stride), list(self.dilation)
        return torch.ops.aten.convolution_backward(
            dy, x, like, None, stride, list(padding), dilation, False, zeros, groups, [False, True, False]
        )[1]

    def transposed(self, x: torch.Tensor, w: torch.Tensor, groups: int) -> torch.Tensor:
        padding, more, cut = [], [], []
        for a in self.axes:
            n, m, k = (self.task.lengths[i] for i in (a.position, a.place, a.offset))
            whole = a.stride * (m - 1) + a.dilation * (k - 1) + 1
            before, after = -a.start, n + -a.start - whole
            fits = before >= 0 and 0 <= after + before < max(a.stride, a.dilation)
            padding.append(before if fits else 0)
            more.append(after + before if fits else 0)
            cut.append((0, 0) if fits else (-before, after))
        transpose = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
        value = transpose[len(self.axes) - 1](x, w, None, self.stride, padding, more, groups, self.dilation)
        return stretched(value, [(0, 0), (0, 0), *cut])


@lru_cache(maxsize=4096)
def convolution(task: Task) -> Convolution | None:
    """Return the convolution of the first operand, the map, with the second that a task is; None if it is none."""
    first, second = map(set, task.operands)
    output, lengths = set(task.output), task.lengths
    axes, kinds, flipped = [], set(), ""
    for position, terms, start in task.relations:
        if len(terms) != 2 or not terms[0][1] or not terms[1][1]:
            return None
        for letter, factor in terms:
            if factor < 0:
                # The letter runs backwards: factor*i = -factor*(length-1-i) + factor*(length-1).
                flipped, start = flipped + letter, start + factor * (lengths[letter] - 1)
        (i, s), (u, d) = terms
        axis = Axis(position, i, u, abs(s), abs(d), start)
        for one in (axis, axis.turned()):
            at = tuple(
                letter in first and letter not in second | output
                and other in second and other not in first | output
                and third in output and third not in first | second
                for letter, other, third in (
                    (one.position, one.offset, one.place),
                    (one.place, one.offset, one.position),
                    (one.position, one.place, one.offset),
                )
            )  # fmt: skip
            kind = next((k for k, found in zip(("forward", "transposed", "kernel"), at, strict=True) if found), None)
            # Forward and kernel are one sum with the roles of places and offsets exchanged: offsets are the fewer.
            if kind == "transposed" or (kind and lengths[one.offset] <= lengths[one.place]):
                kinds.add(kind)
                axes.append(one)
                break
        else:
            return None
    if len(kinds) != 1 or not 1 <= len(axes) <= 3:
        return None
    used = {i for a in axes for i in (a.position, a.place, a.offset)}
    if len(used) < 3 * len(axes):
        return None
    rest = [i for i in dict.fromkeys("".join(task.operands)) if i not in used]
    both, summed, own, other = "", "", "", ""
    for letter in rest:
        if letter not in output:
            if not (letter in first and letter in second):
                return None
            summed += letter
        elif letter in first and letter in second:
            both += letter
        elif letter in first:
            own += letter
        else:
            other += letter
    return Convolution(task, kinds.pop(), tuple(axes), both, summed, own, other, flipped)


def stretched(value: torch.Tensor, sides: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return a tensor with so many more zeros before and behind each axis, or with so many entries less."""
    more = [0] * 2 * (value.ndim - len(sides)) + [max(0, n) for pair in reversed(sides) for n in pair]
    value = functional.pad(value, more) if any(more) else value
    for axis, (before, after) in enumerate(sides):
        if before < 0 or after < 0:
            start = max(0, -before)
            value = value.narrow(axis, start, value.shape[axis] - start - max(0, -after))
    return value


def arranged(value: torch.Tensor, letters: Letters, groups: Sequence[Letters]) -> torch.Tensor:
    """Return a tensor with one axis for each group of letters."""
    if all(len(group) <= 1 for group in groups):
        # No reshape: it may lose the strides by which torch knows a map with the channels last.
        value = value.permute([letters.index(i) for group in groups for i in group])
        for axis, group in enumerate(groups):
            value = value if group else value.unsqueeze(axis)
        return value
    lengths = dict(zip(letters, value.shape, strict=True))
    value = value.permute([letters.index(i) for group in groups for i in group])
    return value.reshape([prod([lengths[i] for i in group]) for group in groups])


def flip(value: torch.Tensor, letters: Letters, flipped: Letters) -> torch.Tensor:
    axes = [k for k, i in enumerate(letters) if i in flipped]
    return value.flip(axes) if axes else value
