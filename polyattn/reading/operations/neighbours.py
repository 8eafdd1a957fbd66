"""Places beside a place: the slots of a convolution and of padding with zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polyattn.reading.operations.table import Called, operation
from polyattn.reading.sizes import Size, UnsayableError, keep_whole
from polyattn.reading.values import ONE, Affine, Index, Slot, Term, Value

Axes = tuple[tuple[Index, ...], ...]


def neighbours(
    call: Called, x: Value, weight: Value, steps: tuple[Sequence[int], Sequence[int], Any]
) -> tuple[Value, Value, Axes, dict[Index, Slot]]:
    """Return a convolution's operands without the axes of places, those of the result, and the contents of x's slots.

    Args:
        steps: strides and dilations along each axis of places, and the padding as torch takes it.

    Raises:
        UnsayableError: the places are those of a split size, or none is left to vary.
    """
    strides, dilations, padding = steps
    count = len(strides)
    lengths = [_product(axis) for axis in weight.axes[2:]]
    before = _before(padding, lengths, dilations)
    if any(not i.size.fixed for axis in weight.axes[2:] for i in axis):
        raise UnsayableError("a kernel of any length")
    first = len(x.axes) - count
    moved = [k for k in range(count) if (lengths[k], strides[k], before[k]) != (1, 1, 0)]
    if moved:
        x = with_places(call, x, [first + k for k in moved])
    x, weight = x.fresh(), weight.fresh()
    kernel: dict[Index, Slot] = {}
    offsets: dict[Index, Slot] = {}
    places = list(x.axes[first:])
    for k in moved:
        (index,) = places[k]
        terms: list[tuple[Index, int]] = []
        if lengths[k] > 1:
            (old,) = weight.axes[2 + k] if len(weight.axes[2 + k]) == 1 else (None,)
            if old is None:
                raise UnsayableError("a kernel of a split size")
            keep_whole(old.size)
            old.size.root.kernel = True
            offset = Index(old.size, -(lengths[k] // 2))
            kernel[old] = (offset,)
            terms = [(offset, dilations[k])]
        constant = dilations[k] * (lengths[k] // 2) - before[k]
        places[k], offsets[index] = _combined(index, call.shape[first + k], strides[k], terms, constant)
    weight = weight.mapped(kernel)
    return replace(x, axes=x.axes[:first]), replace(weight, axes=weight.axes[:2]), tuple(places), offsets


def _combined(
    index: Index, length: tuple[int, ...], factor: int, terms: Sequence[tuple[Index, int]], constant: int
) -> tuple[tuple[Index, ...], Slot]:
    """Return the axis of a result over an axis's places, and the combination that reads them."""
    if set(length) == {1}:
        raise UnsayableError("a convolution that leaves one place")
    new = Index(index.size if length == index.size.values else Size(length))
    keep_whole(index.size)
    keep_whole(new.size)
    return (new,), (Affine(((new, factor), *terms), constant, index.size),)


def _product(axis: tuple[Index, ...]) -> int:
    found = 1
    for index in axis:
        found *= index.size.example
    return found


def _before(padding: Any, lengths: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Return the number of zeros before each axis."""
    if padding == "valid":
        return [0] * len(lengths)
    if padding == "same":
        return [d * (n - 1) // 2 for n, d in zip(lengths, dilations, strict=True)]
    found = [padding] if isinstance(padding, int) else list(padding)
    return found * len(lengths) if len(found) == 1 else found


def with_places(call: Called, x: Value, axes: Sequence[int]) -> Value:
    """Return a value whose entries along some axes are the places of a slot of their own.

    Raises:
        UnsayableError: offsets are not allowed, an axis has parts or one place, or the value is the same at all places.
    """
    if not call.wide:
        raise UnsayableError("a convolution over neighbours")
    for axis in axes:
        if not x.axes[axis]:
            raise UnsayableError("offsets along an axis of one place")
        if len(x.axes[axis]) > 1 or x.axes[axis][0].size.root.parts:
            raise UnsayableError("offsets over a split size")

    def plain(index: Index) -> bool:
        return x.slots.count((index,)) == 1 and x.access.indices.count(index) == 1

    if x.tensor.kind not in ("input", "definition") or not all(plain(x.axes[k][0]) for k in axes):
        x = call.inner(x.axes, (Term(ONE, (x.access,)),), "map")
    if not all(plain(x.axes[k][0]) for k in axes):
        raise UnsayableError("offsets in a tensor that is the same at all places")
    return x


@operation("constant_pad_nd", "pad")
def pad(call: Called, x: Value, amounts: Sequence[Any], *more: Any, **given: Any) -> Value:
    """Read padding with zeros: the same tensor, read at places outside of it as well."""
    mode, fill = given.get("mode", "constant"), given.get("value") or 0
    for argument in more:
        mode, fill = (argument, fill) if isinstance(argument, str) else (mode, argument or 0)
    if mode != "constant" or fill:
        raise UnsayableError("padding with other entries than zeros")
    if any(not isinstance(n, int) or n < 0 for n in amounts):
        raise UnsayableError("padding by a negative or unknown number")
    sides = {len(x.axes) - 1 - k: (amounts[2 * k], amounts[2 * k + 1]) for k in range(len(amounts) // 2)}
    axes = [k for k, both in sides.items() if any(both)]
    if any(not sides[k][0] for k in axes):
        raise UnsayableError("padding behind the last place only")
    x = with_places(call, x, axes).fresh()
    offsets: dict[Index, Slot] = {}
    places = list(x.axes)
    for k in axes:
        (index,) = places[k]
        places[k], offsets[index] = _combined(index, call.shape[k], 1, (), -sides[k][0])
    found = replace(x, axes=tuple(places), slots=x.mapped(offsets).slots)
    return call.inner(found.axes, (Term(ONE, (found.access,)),), "padded")
