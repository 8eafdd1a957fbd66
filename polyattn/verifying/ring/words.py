"""Elements of a ring as words of 64 bits, and the memory of kernels that holds them.

A word is a residue modulo the prime, a residue modulo the order of the field's base (the element as an exponent), and
three marks: -inf, nan, and "not an exponent", as of the results of exponentials. Memory has the addresses of real
tensors, with wide gaps between them, so that every access outside of a tensor is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.verifying.ring.ring import Ring
from polyattn.verifying.ring.tensor import RingTensor

VALUE, SHIFT, POWER = np.uint64(2**31 - 1), np.uint64(32), np.uint64(2**30 - 1)
NAN, BLIND, MINUS_INF = np.uint64(1 << 31), np.uint64(1 << 62), np.uint64(1 << 63)
"""Marks; a blind word is not an exponent."""

GAP = 1 << 18
"""Elements around a tensor that belong to no tensor."""


class OutsideError(IndexError):
    """A kernel reads or writes outside of its tensors."""


@dataclass
class Words:
    """Words taken apart.

    Attributes:
        value, power: residues, int64.
        infinite, nan, blind: marks.
    """

    value: np.ndarray
    power: np.ndarray
    infinite: np.ndarray
    nan: np.ndarray
    blind: np.ndarray

    @classmethod
    def of(cls, packed: np.ndarray) -> Words:
        """Take packed words apart."""
        return cls(
            (packed & VALUE).astype(np.int64),
            ((packed >> SHIFT) & POWER).astype(np.int64),
            (packed & MINUS_INF) != 0,
            (packed & NAN) != 0,
            (packed & BLIND) != 0,
        )

    def packed(self) -> np.ndarray:
        """Return the words, uint64."""
        zero = np.uint64(0)
        words = self.value.astype(np.uint64) | (self.power.astype(np.uint64) << SHIFT)
        words = np.where(self.infinite, MINUS_INF, words) | np.where(self.blind, BLIND, zero)
        return words | np.where(self.nan, NAN, zero)


@dataclass
class _Segment:
    """The memory of one tensor, or of several that share it: `count` words from `base` in the table of all words."""

    whole: Tensor
    buffer: Tensor
    start: int
    itemsize: int
    count: int
    base: int
    outside: bool
    views: list[RingTensor]


class Memory:
    """The tensors of one launch."""

    def __init__(self, ring: Ring):
        self.ring = ring
        self.segments: dict[tuple[int, torch.dtype], _Segment] = {}
        self.words = np.zeros(0, np.uint64)
        self.integers: list[tuple[int, int]] = []

    def holds(self, value: Any) -> Any:
        """Return an argument for the kernel: a tensor of floats as one at an address of this memory, others as is."""
        if not isinstance(value, Tensor):
            return value
        outside = not isinstance(value, RingTensor)
        if not isinstance(value, RingTensor):
            if not value.is_floating_point():
                storage = value.untyped_storage()
                self.integers.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
                return value
            value = self.ring.lift(value)
        storage = value.values.untyped_storage()
        key = (storage.data_ptr(), value.dtype)
        if key not in self.segments:
            whole = torch.empty(0, dtype=torch.int64).set_(storage)
            buffer = torch.empty(whole.numel() + 2 * GAP, dtype=value.dtype)
            size = value.dtype.itemsize
            start = buffer.data_ptr() + GAP * size
            made = _Segment(whole, buffer, start, size, whole.numel(), len(self.words), outside, [])
            self.segments[key] = made
            self.words = np.concatenate([self.words, whole.numpy().astype(np.uint64) | BLIND])
        segment = self.segments[key]
        segment.views.append(value)
        self._write_view(segment, value)
        return torch.as_strided(segment.buffer, value.shape, value.stride(), GAP + value.values.storage_offset())

    def _places(self, segment: _Segment, value: RingTensor) -> np.ndarray:
        every = torch.arange(segment.count)
        view = torch.as_strided(every, value.shape, value.stride(), value.values.storage_offset())
        return segment.base + view.numpy()

    def _write_view(self, segment: _Segment, value: RingTensor) -> None:
        """Enter the tensor's other planes."""
        shape, powers = tuple(value.shape), value.exponents
        words = Words(
            value.values.numpy(),
            np.zeros(shape, np.int64) if powers is None else powers.numpy(),
            np.zeros(shape, bool) if value.infinite is None else value.infinite.numpy(),
            np.zeros(shape, bool),
            np.full(shape, powers is None),
        )
        self.words[self._places(segment, value)] = words.packed()

    def ready(self) -> None:
        """Fix the addresses; no tensor is added afterwards."""
        self.order = sorted(self.segments.values(), key=lambda s: s.start)
        self.starts = np.array([s.start for s in self.order], np.uint64)
        self.before = self.words.copy()

    def index(self, pointers: np.ndarray, doing: str) -> np.ndarray:
        """Return the places of addresses in the table of words.

        Raises:
            OutsideError: an address is not one of a tensor's elements.
        """
        if not pointers.size:
            return np.zeros(0, np.int64)
        number = np.searchsorted(self.starts, pointers, side="right") - 1
        found = np.zeros(pointers.shape, np.int64)
        for k in np.unique(number):
            here = number == k
            segment = self.order[max(int(k), 0)]
            offset = pointers[here].astype(np.int64) - segment.start
            wrong = (offset < 0) | (offset >= segment.count * segment.itemsize) | (offset % segment.itemsize != 0)
            if k < 0 or wrong.any():
                element = int(offset[wrong.argmax()]) // segment.itemsize
                raise OutsideError(f"a kernel {doing} element {element} of memory of {segment.count} elements")
            found[here] = segment.base + offset // segment.itemsize
        return found

    def check_integers(self, pointers: np.ndarray, doing: str) -> None:
        """Raise OutsideError where an address of integers is outside of all tensors of integers."""
        inside = np.zeros(pointers.shape, bool)
        for start, end in self.integers:
            inside |= (pointers >= np.uint64(start)) & (pointers < np.uint64(end))
        if not inside.all():
            raise OutsideError(f"a kernel {doing} memory outside of its tensors of integers")

    def take_back(self) -> Iterator[_Segment]:
        """Write the kernel's changes into the tensors; yield each changed segment."""
        order = self.ring.field.order
        for segment in self.segments.values():
            part = slice(segment.base, segment.base + segment.count)
            if np.array_equal(self.words[part], self.before[part]):
                continue
            words = Words.of(self.words[part])
            lost = torch.randint(self.ring.field.prime, (segment.count,), generator=self.ring.generator)
            segment.whole.copy_(torch.from_numpy(np.where(words.nan, lost.numpy(), words.value)))
            for view in segment.views:
                if any(stride == 0 and n > 1 for stride, n in zip(view.stride(), view.shape, strict=True)):
                    continue
                places = self._places(segment, view) - segment.base
                view.masked.copy_(torch.from_numpy(words.infinite[places]))
                view.state.infinite |= bool(words.infinite[places].any())
                view.state.exponents &= bool(order) and not bool((words.blind | words.nan)[places].any())
                if view.state.exponents and view.powers is not None:
                    view.powers.copy_(torch.from_numpy(words.power[places]))
            yield segment
