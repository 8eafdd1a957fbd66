"""Masks: tensors of 0 and 1 that compare positions, and scores that are minus infinity outside of them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import torch

from polyattn.reading.operations.table import (
    Called,
    as_value,
    axes_of,
    common,
    fraction,
    operation,
    product,
    total,
)
from polyattn.reading.sizes import Size, UnsayableError, Values, composite, unify
from polyattn.reading.values import (
    ONE,
    Access,
    Call,
    Coefficient,
    Index,
    Slot,
    Tensor,
    Term,
    Value,
    indices_of,
    map_access,
)

OTHER = {"<=": ">", ">": "<="}
NOWHERE = (Access(Tensor("condition", "nowhere", ()), ()),)
"""The condition of minus infinity at every place."""

PLACES = "the numbers from 0 on"


def comparison(rows: tuple[Index, ...], columns: tuple[Index, ...], relation: str, number: int = 0) -> Value:
    """Return a mask that is 1 where a column stands in a relation to its row plus a number, else 0."""
    sizes = composite([i.size for i in rows]), composite([i.size for i in columns])
    return Value((rows, columns), Tensor("condition", "mask", sizes, number=number, relation=relation), (rows, columns))


def triangle(
    call: Called, rows: tuple[Index, ...], columns: tuple[Index, ...], relation: str, number: int = 0
) -> Value:
    """Return a mask for the last two axes of a tensor.

    Raises:
        UnsayableError: conditions are not allowed, or the axes have different lengths.
    """
    if not call.wide:
        raise UnsayableError("a mask between positions")
    if not rows or not columns or _lengths(rows) != _lengths(columns):
        raise UnsayableError("a mask between positions of different sizes")
    if len(rows) == len(columns) == 1:
        unify(rows[0].size, columns[0].size)
    return comparison(tuple(i.fresh() for i in rows), tuple(i.fresh() for i in columns), relation, number)


def _lengths(axis: tuple[Index, ...]) -> Values:
    return composite([i.size for i in axis]).values


def of_data(data: torch.Tensor, count: int) -> Value | None:
    """Return a constant that is a triangle of ones, or of minus infinities beside zeros, as a mask; else None."""
    full = [k for k, n in enumerate(data.shape) if n != 1]
    if len(full) != 2 or data.shape[full[0]] != data.shape[full[1]]:
        return None
    n = data.shape[full[0]]
    flat = data.reshape(n, n)
    additive = bool((flat == -inf).any())
    ones = flat == 0 if additive else flat == 1
    if not bool((ones | (flat == (-inf if additive else 0))).all()):
        return None
    lead = int(ones[0].sum())
    place = torch.arange(n, device=data.device)
    for relation, number in (("<=", lead - 1), (">", n - lead - 1)):
        below = place <= place[:, None] + number
        if 0 < lead < n and torch.equal(ones, below if relation == "<=" else ~below):
            rows, columns = (Index(Size((n,) * count)) for _ in range(2))
            mask = comparison((rows,), (columns,), relation, number)
            if additive:
                mask = replace(as_value(0), axes=mask.axes, where=(mask.access,))
            axes: list[tuple[Index, ...]] = [()] * data.dim()
            axes[full[0]], axes[full[1]] = mask.axes
            return replace(mask, axes=tuple(axes))
    return None


def conditions(mask: Value) -> tuple[Access, ...]:
    """Return the conditions that a mask is the product of.

    Raises:
        UnsayableError: it is not made of comparisons of positions.
    """
    tensor = mask.tensor
    if is_places(mask):
        raise UnsayableError("places that are not compared")
    if tensor.kind == "condition":
        return (mask.access,)
    if tensor.kind == "definition" and not isinstance(tensor.body, Call) and len(tensor.body) == 1:
        (term,) = tensor.body
        if term.coefficient == ONE and all(f.tensor.kind == "condition" and not f.divides for f in term.factors):
            mapping = dict(zip(tensor.indices, mask.slots, strict=True))
            if set(term.indices) <= set(mapping):
                return tuple(map_access(f, mapping) for f in term.factors)
    raise UnsayableError("a mask that does not compare positions")


def is_places(value: Any) -> bool:
    return isinstance(value, Value) and value.tensor.hint == PLACES and value.tensor.kind == "condition"


def is_mask(value: Any) -> bool:
    try:
        return isinstance(value, Value) and bool(conditions(value))
    except UnsayableError:
        return False


def negated(call: Called, mask: Value) -> Value:
    """Return 1 minus a mask."""
    tensor = mask.tensor
    if tensor.kind == "condition":
        return replace(mask, tensor=replace(tensor, relation=OTHER[tensor.relation], parts={}, dropped=[]))
    body = tensor.body
    if tensor.kind == "definition" and not isinstance(body, Call) and len(body) == 2:
        one, minus = body
        is_one = [f.tensor.body for f in one.factors] == [(Term(ONE),)] and one.coefficient == ONE
        if is_one and minus.coefficient == fraction(-1) and len(minus.factors) == 1:
            mapping = dict(zip(tensor.indices, mask.slots, strict=True))
            access = map_access(minus.factors[0], mapping)
            return Value(mask.axes, access.tensor, access.slots)
    return total(call, [as_value(1), mask], [ONE, fraction(-1)])


def restricted(x: Value, mask: Value) -> Value:
    """Return a value that is minus infinity where a mask is 0."""
    a, b = common(x, mask)
    return Value(axes_of([a, b]), a.tensor, a.slots, (*a.where, *conditions(b)))


def plus(call: Called, left: Value, right: Value, scale: Coefficient = ONE) -> Value:
    """Return the sum of two values, either of which may be minus infinity somewhere."""
    a, b = common(left, right)
    where = (*a.where, *b.where)
    if b.where and scale != ONE:
        raise UnsayableError("a multiple of minus infinity")
    number = next((v for v in (a, b) if v.where and not v.tensor.body and v.tensor.kind == "definition"), None)
    if number is not None and (scale == ONE or number is b):
        other = b if number is a else a
        return Value(axes_of([a, b]), other.tensor, other.slots, where)
    bare = [replace(v, where=()) for v in (a, b)]
    axes = axes_of([a, b])
    terms = tuple(Term(s, (v.access,)) for v, s in zip(bare, (ONE, scale), strict=True) if s.number)
    found = call.define(axes, terms)
    return replace(found, where=where)


@operation("tril", "triu")
def triangular(call: Called, x: Value, diagonal: int = 0) -> Value:
    if not isinstance(diagonal, int):
        raise UnsayableError("a diagonal that depends on a length")
    relation, number = ("<=", diagonal) if call.name == "tril" else (">", diagonal - 1)
    mask = triangle(call, x.axes[-2], x.axes[-1], relation, number)
    if x.where and x.where != NOWHERE:
        raise UnsayableError("a triangle of minus infinities")
    if x.where:
        return restricted(replace(x, where=()), negated(call, mask))
    if x.tensor.kind == "definition" and x.tensor.body == (Term(ONE),):
        a, b = common(x, mask)
        return replace(b, axes=axes_of([a, b]))
    return product(call, [x, mask])


@operation("arange")
def places(call: Called, *bounds: Any, **_: Any) -> Value:
    """Read the numbers from 0 on: only their comparison with each other means something."""
    if len(bounds) == 3 and bounds[2] == 1:
        bounds = bounds[:2]
    if not call.wide or len(bounds) > 2 or (len(bounds) == 2 and bounds[0] != 0) or set(call.shape[0]) == {1}:
        raise UnsayableError("numbers that do not count from 0")
    index = Index(Size(call.shape[0]))
    return Value(((index,),), Tensor("condition", PLACES, (index.size,)), ((index,),))


@operation("eq", "ne", "gt", "lt", "ge", "le")
def compared(call: Called, x: Any, other: Any) -> Value:
    """Read a comparison of places, and conversions of masks to booleans, such as `mask == 0`."""
    if is_places(x) and is_places(other):
        return _order(call, x, other)
    if not is_mask(x) or (call.name, other) not in _MEANS:
        raise UnsayableError("a comparison of values")
    return x if _MEANS[call.name, other] else negated(call, x)


def _order(call: Called, left: Value, right: Value) -> Value:
    a, b = common(left, right)
    (column,), (row,) = (a.slots, b.slots) if call.name[0] == "l" else (b.slots, a.slots)
    if column == row or call.name not in _ORDERS:
        raise UnsayableError("a comparison of a place with itself, or for equality")
    mask = triangle(call, _indices(row), _indices(column), "<=", _ORDERS[call.name])
    return Value(axes_of([a, b]), mask.tensor, (row, column))


def _indices(slot: Slot) -> tuple[Index, ...]:
    return tuple(i for e in slot for i in indices_of(e))


_ORDERS = {"le": 0, "lt": -1, "ge": 0, "gt": -1}
_MEANS = {("eq", 0): False, ("eq", 1): True, ("ne", 0): True, ("ne", 1): False, ("gt", 0): True, ("lt", 1): False}


@operation("bitwise_and", "logical_and")
def both(call: Called, left: Value, right: Value) -> Value:
    if not is_mask(left) or not is_mask(right):
        raise UnsayableError("a logical operation on values")
    return product(call, [left, right])
