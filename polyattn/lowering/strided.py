"""Windows along one axis of a tensor as pairs of strided views, one for each offset, and sums over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from polyattn.kernels.runtime import transformed
from polyattn.lowering.convolutions import Letters, Relation, Task

View = tuple[slice, slice]
Slices = tuple[slice, ...]


def is_plain(value: Tensor) -> bool:
    """Test if views may be written to: else torch's own operations run, which others have rules for."""
    followed = transformed() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return type(value) in (Tensor, torch.nn.Parameter) and not followed


@dataclass(frozen=True)
class Strided:
    """One axis of a tensor that is read in windows.

    Attributes:
        axis: its number.
        backwards: whether the tensor is turned around along it first.
        length: the number of places of the result; 1 where the combination has no letter of the result.
        views: for each offset, the places of the result and those of the tensor that it reads.
    """

    axis: int
    backwards: bool
    length: int
    views: tuple[View, ...]

    @classmethod
    def of(cls, axis: int, relation: Relation, output: Letters, lengths: dict[str, int]) -> Strided:
        position, terms, start = relation
        whole = lengths[position]
        kept = [(i, c) for i, c in terms if i in output]
        backwards = any(c < 0 for _, c in kept)
        if backwards:
            # p = c*i + ... + n says whole-1-p = -c*i - ... + whole-1-n.
            terms, start = tuple((i, -c) for i, c in terms), whole - 1 - start
            kept = [(i, -c) for i, c in kept]
        (letter, stride), *_ = kept or [("", 1)]
        length = lengths[letter] if letter else 1
        run = [range(0, c * lengths[i], c) for i, c in terms if i != letter]
        views = tuple(_inside(start + sum(at), stride, length, whole) for at in product(*run))
        return cls(axis, backwards, length, tuple(v for v in views if v[0].start < v[0].stop))

    def turned(self, value: Tensor) -> Tensor:
        return value.flip(self.axis) if self.backwards else value

    @property
    def slices(self) -> Iterator[tuple[Slices, Slices]]:
        """For each offset the places of the result, and those of the tensor that belong to them."""
        before = (slice(None),) * self.axis
        for to, at in self.views:
            yield (*before, to), (*before, at)

    def empty(self, value: Tensor, length: int) -> Tensor:
        """Return memory for a tensor of another length along the axis, laid out as this one is."""
        shape = [length if k == self.axis else n for k, n in enumerate(value.shape)]
        order = sorted(range(value.dim()), key=lambda k: -value.stride(k))
        return torch.empty_permuted(shape, order, dtype=value.dtype, device=value.device)


def _inside(start: int, stride: int, length: int, whole: int) -> View:
    """Return the places i of `length` with stride*i + start within `whole` places, and these."""
    first = max(0, -(start // stride))
    last = min(length, (whole - 1 - start) // stride + 1)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    return slice(first, last), slice(stride * first + start, stride * (last - 1) + start + 1, stride)


def box_sum(value: Tensor, task: Task) -> Tensor:
    """Return a sum over windows along one axis, of one operand: read at its positions, or written to the result's."""
    (letters,), (relation,), lengths = task.operands, task.relations, task.lengths
    position, terms, _ = relation
    reads = position in letters
    letter = next(i for i, _ in terms if i in (task.output if reads else letters))
    number = letters.index(position if reads else letter)
    axis = Strided.of(number, relation, letter, lengths)
    value = axis.turned(value) if reads else value
    total = axis.empty(value, axis.length if reads else lengths[position]).zero_()
    for to, at in axis.slices:
        total[to if reads else at].add_(value[at if reads else to])
    names = letters.replace(position, letter) if reads else letters.replace(letter, position)
    total = total if reads else axis.turned(total)
    return total.permute([names.index(i) for i in task.output])
