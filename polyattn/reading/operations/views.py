"""Operations that move entries: views, slices, concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polyattn.reading.builder import one_hot, pushed
from polyattn.reading.operations.masks import is_mask
from polyattn.reading.operations.table import Called, axis_number, common, operation
from polyattn.reading.sizes import Size, UnsayableError, Values, divided
from polyattn.reading.values import ONE, Index, Pick, Ranged, Slot, Term, Value, reshaped


@operation(
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"),
    *("_reshape_copy", "view_copy", "squeeze_copy", "unsqueeze_copy"),
)
def view(call: Called, x: Value, *_: Any, **__: Any) -> Value:
    return reshaped(x, call.shape)


@operation(
    *("clone", "contiguous", "alias", "detach", "lift_fresh_copy", "lift_fresh", "positive", "alias_copy"),
    *("resolve_conj", "resolve_neg"),
)
def same(call: Called, x: Value, *_: Any, **__: Any) -> Value:
    return x


@operation("_to_copy", "to", "type_as", "_autocast_to_reduced_precision", "_autocast_to_full_precision")
def cast(call: Called, x: Value, *_: Any, **__: Any) -> Value:
    if call.inputs[:1] != (call.kinds[0],) and call.kinds[0] != "float" and not is_mask(x):
        raise UnsayableError("a conversion to whole numbers")
    return x


@operation("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def dropout(call: Called, x: Value, p: float = 0.5, train: bool = False) -> Value:
    if train and p > 0:
        raise UnsayableError("dropout in training mode")
    return x


@operation("permute", "permute_copy")
def permute(call: Called, x: Value, dims: Sequence[int]) -> Value:
    return replace(x, axes=tuple(x.axes[axis_number(d, len(x.axes))] for d in dims))


@operation("transpose", "swapaxes", "swapdims", "transpose_copy")
def transpose(call: Called, x: Value, first: int, second: int) -> Value:
    axes = list(x.axes)
    first, second = axis_number(first, len(axes)), axis_number(second, len(axes))
    axes[first], axes[second] = axes[second], axes[first]
    return replace(x, axes=tuple(axes))


@operation("t", "numpy_T", "mT", "t_copy", "matrix_H", "adjoint", "mH")
def turned(call: Called, x: Value) -> Value:
    if call.name == "numpy_T":
        return replace(x, axes=x.axes[::-1])
    return transpose(call, x, -1, -2) if len(x.axes) > 1 else x


@operation("movedim", "moveaxis")
def movedim(call: Called, x: Value, source: int | Sequence[int], target: int | Sequence[int]) -> Value:
    rank = len(x.axes)
    given = [axis_number(k, rank) for k in ([source] if isinstance(source, int) else source)]
    wanted = [axis_number(k, rank) for k in ([target] if isinstance(target, int) else target)]
    left = [k for k in range(rank) if k not in given]
    placed = dict(zip(wanted, given, strict=True))
    return replace(x, axes=tuple(x.axes[placed[k] if k in placed else left.pop(0)] for k in range(rank)))


@operation("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(call: Called, x: Value, *_: Any, **__: Any) -> Value:
    axes = ((),) * (len(call.shape) - len(x.axes)) + x.axes
    return replace(x, axes=tuple(axis or _new(n) for axis, n in zip(axes, call.shape, strict=True)))


def _new(values: Values) -> tuple[Index, ...]:
    return () if set(values) == {1} else (Index(Size(values)),)


@operation("repeat", "tile")
def repeat(call: Called, x: Value, repeats: Sequence[Any]) -> Value:
    axes = ((),) * (len(call.shape) - len(x.axes)) + x.axes
    found = []
    for axis, n in zip(axes, call.shape, strict=True):
        times = divided(n, _length(axis, n))
        if times is None:
            raise UnsayableError("a repetition")
        found.append((*_new(times), *axis))
    return replace(x, axes=tuple(found))


@operation("repeat_interleave")
def repeat_interleave(call: Called, x: Value, repeats: Any, dim: int | None = None, output_size: Any = None) -> Value:
    if not isinstance(repeats, int) or dim is None:
        raise UnsayableError("repeat_interleave by a tensor")
    dim = axis_number(dim, len(x.axes))
    axes = list(x.axes)
    axes[dim] = (*axes[dim], *_new((repeats,) * len(call.shape[dim])))
    return replace(x, axes=tuple(axes))


def _length(axis: tuple[Index, ...], like: Values) -> Values:
    found = (1,) * len(like)
    for index in axis:
        found = tuple(a * b for a, b in zip(found, index.size.values, strict=True))
    return found


@operation("select", "select_copy")
def select(call: Called, x: Value, dim: int, place: int) -> Value:
    if not isinstance(place, int):
        raise UnsayableError("an entry whose place depends on a length")
    dim = axis_number(dim, len(x.axes))
    length = _length(x.axes[dim], call.shape[0] if call.shape else _ones(x))
    if place < 0:
        if len(set(length)) > 1:
            raise UnsayableError("an entry counted from the end of an axis of any length")
        place += length[0]
    mapping: dict[Index, Slot] = {}
    for index in reversed(x.axes[dim]):
        if not index.size.fixed:
            raise UnsayableError("an entry of an axis of any length")
        mapping[index] = (Pick(place % index.size.example, index.size),)
        place //= index.size.example
    gone = replace(x, axes=tuple(axis for k, axis in enumerate(x.axes) if k != dim))
    return _with_slots(gone, x, mapping)


def _ones(x: Value) -> Values:
    return next(((1,) * len(i.size.values) for i in x.indices), (1,))


def _with_slots(axes: Value, x: Value, mapping: dict[Index, Slot]) -> Value:
    return pushed(replace(axes, slots=x.mapped(mapping).slots))


@operation("slice", "narrow", "slice_copy")
def cut_out(call: Called, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    dim = axis_number(dim, len(x.axes))
    length = call.shape[dim]
    whole = _length(x.axes[dim], length)
    begin = _values(start, len(length), 0)
    begin = tuple(max(b + w, 0) if b < 0 else min(b, w) for b, w in zip(begin, whole, strict=True))
    return _slice(x, dim, begin, length, step)


def _values(given: Any, count: int, default: int) -> Values:
    if given is None:
        return (default,) * count
    return (given,) * count if isinstance(given, int) else tuple(int(v) for v in given.values)


def _slice(x: Value, dim: int, begin: Values, length: Values, step: int = 1) -> Value:
    """Return `length` entries of an axis from `begin` on."""
    whole = _length(x.axes[dim], length)
    if length == whole:
        return x
    if any(n < 1 for n in length):
        raise UnsayableError("an empty slice")
    x = x.fresh()
    if x.tensor.kind == "condition" and step == 1 and not any(begin) and len(x.axes[dim]) == 1:
        # The first positions of a mask compare as they did.
        return x.mapped({x.axes[dim][0]: (Index(Size(length)),)})
    if step != 1:
        if any(w % step for w in whole) or len(set(begin)) > 1 or begin[0] >= step:
            raise UnsayableError("a slice with a step")
        return _picked(x, dim, Size(length), begin[0], inner=True)
    count = divided(whole, length)
    if count is not None:
        entry = {b // n if b % n == 0 else -1 for b, n in zip(begin, length, strict=True)}
        if len(set(count)) == 1 and len(entry) == 1 and -1 not in entry:
            try:
                return _picked(x, dim, Size(count), entry.pop())
            except UnsayableError:
                if len(x.axes[dim]) > 1:
                    raise
    if len(x.axes[dim]) != 1 or len({*begin}) > 1 or len({*length}) > 1 or len({*whole}) > 1:
        raise UnsayableError("a slice of part of an axis")
    (index,) = x.axes[dim]
    new = Index(Size(length))
    axes = tuple((new,) if k == dim else axis for k, axis in enumerate(x.axes))
    return _with_slots(replace(x, axes=axes), x, {index: (Ranged(new, begin[0], index.size),)})


def _picked(x: Value, dim: int, outer: Size, entry: int, inner: bool = False) -> Value:
    """Return an entry of the outer, or of the inner, part of an axis."""
    shape = [_length(axis, outer.values) for axis in x.axes]
    rest = divided(shape[dim], outer.values)
    if rest is None:
        raise UnsayableError("a slice of part of an axis")
    found = reshaped(x, (*shape[:dim], outer.values, rest, *shape[dim + 1 :]))
    gone = dim + int(inner)
    mapping: dict[Index, Slot] = {}
    for index in reversed(found.axes[gone]):
        mapping[index] = (Pick(entry % index.size.example, index.size),)
        entry //= index.size.example
    axes = tuple(axis for k, axis in enumerate(found.axes) if k != gone)
    return _with_slots(replace(found, axes=axes), found, mapping)


@operation("split", "chunk", "split_with_sizes", "tensor_split", "split_copy", "split_with_sizes_copy", "unsafe_split")
def split_axis(call: Called, x: Value, _: Any, dim: int = 0, **__: Any) -> list[Value]:
    dim = axis_number(dim, len(x.axes))
    found, begin = [], (0,) * len(call.shape[dim])
    for shape in call.shapes:
        found.append(_slice(x, dim, begin, shape[dim]))
        begin = tuple(a + b for a, b in zip(begin, shape[dim], strict=True))
    return found


@operation("unbind", "unbind_copy")
def unbind(call: Called, x: Value, dim: int = 0) -> list[Value]:
    return [select(call, x, dim, k) for k in range(len(call.shapes))]


@operation("cat", "concat", "concatenate")
def concatenate(call: Called, parts: Sequence[Value], dim: int = 0) -> Value:
    dim = axis_number(dim, len(call.shape))
    # A reshaped view of each with an axis of length 1 that they are stacked along.
    like = call.shape[dim]
    lengths = {_length(p.axes[dim], like) for p in parts}
    if len(parts) == 1:
        return parts[0]
    if len(lengths) > 1:
        raise UnsayableError("a concatenation of different lengths")
    stacked = _stacked(call, [replace(p, axes=(*p.axes[:dim], (), *p.axes[dim:])) for p in parts], dim)
    axes = stacked.axes
    return replace(stacked, axes=(*axes[:dim], (*axes[dim], *axes[dim + 1]), *axes[dim + 2 :]))


@operation("stack")
def stack(call: Called, parts: Sequence[Value], dim: int = 0) -> Value:
    dim = axis_number(dim, len(call.shape))
    return _stacked(call, [replace(p, axes=(*p.axes[:dim], (), *p.axes[dim:])) for p in parts], dim)


def _stacked(call: Called, parts: Sequence[Value], dim: int) -> Value:
    if len(parts) == 1:
        return parts[0]
    found = common(*parts)
    values = next((i.size.values for v in found for i in v.indices), (1,))
    index = Index(Size((len(parts),) * len(values)))
    axes = tuple(next((v.axes[k] for v in found if v.axes[k]), ()) for k in range(len(found[0].axes)))
    axes = (*axes[:dim], (index,), *axes[dim + 1 :])
    terms = tuple(Term(ONE, (one_hot(index, k), v.access)) for k, v in enumerate(found))
    return call.define(axes, terms, "parts")


@operation("pixel_shuffle", "pixel_unshuffle")
def shuffle(call: Called, x: Value, factor: int) -> Value:
    shape = [_length(axis, call.shape[0]) for axis in x.axes]
    two = (factor,) * len(call.shape[0])
    *lead, channels, height, width = shape
    if call.name == "pixel_shuffle":
        inner = divided(channels, (factor * factor,) * len(channels))
        if inner is None:
            raise UnsayableError("pixel_shuffle")
        a = reshaped(x, (*lead, inner, two, two, height, width))
        *first, c, r, s, i, j = a.axes
        return replace(a, axes=(*first, c, (*i, *r), (*j, *s)))
    high, wide = divided(height, two), divided(width, two)
    if high is None or wide is None:
        raise UnsayableError("pixel_unshuffle")
    a = reshaped(x, (*lead, channels, high, two, wide, two))
    *first, c, i, r, j, s = a.axes
    return replace(a, axes=(*first, (*c, *r, *s), i, j))
