"""The table of operations: a function for each operation of torch that has a meaning in the language.

A function gets the operation's call and its arguments, tensors as `Value`s, and returns a value or a list of them. It
raises `UnsayableError` where the language cannot say the result; the reader then cuts the result off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from polyattn.language.functions import REDUCING, kind
from polyattn.reading.builder import define, number, summed
from polyattn.reading.numbers import exact
from polyattn.reading.sizes import UnsayableError, Values
from polyattn.reading.values import ONE, Body, Call, Coefficient, Index, Term, Value, aligned, power_of

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""By the name in `torch.ops.aten`, without the overload."""


def operation(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATIONS[name] = function
        return function

    return register


@dataclass(frozen=True)
class Called:
    """One call of an operation.

    Attributes:
        name: the operation's.
        shapes: the shape of each result, at each assignment of lengths.
        kinds: "float", "int" or "bool" of each result.
        hint: the name of the module that computes it, or "".
        place: the line of code.
        inputs: "float", "int" or "bool" of each tensor among the arguments, in their order.
        wide: whether offsets and conditions may be used.
    """

    name: str
    shapes: tuple[tuple[Values, ...], ...]
    kinds: tuple[str, ...]
    hint: str = ""
    place: str = ""
    inputs: tuple[str, ...] = ()
    wide: bool = True

    @property
    def shape(self) -> tuple[Values, ...]:
        return self.shapes[0]

    def define(self, axes: tuple[tuple[Index, ...], ...], body: Body, hint: str = "t") -> Value:
        return define(axes, body, self.hint or hint, self.place)

    def inner(self, axes: tuple[tuple[Index, ...], ...], body: Body, hint: str) -> Value:
        """Return a definition of part of the operation's result."""
        return define(axes, body, hint, self.place)


def is_value(argument: object) -> bool:
    return isinstance(argument, Value)


def as_value(argument: object) -> Value:
    return argument if isinstance(argument, Value) else number(exact(argument))


def common(*values: Value) -> list[Value]:
    """Return values broadcast against each other: with the same indices on every axis that has any."""
    found = [v.fresh() for v in values]
    rank = max(len(v.axes) for v in found)
    found = [replace(v, axes=((),) * (rank - len(v.axes)) + v.axes) for v in found]
    for axis in range(rank):
        for k in range(1, len(found)):
            first = next((v.axes[axis] for v in found[:k] if v.axes[axis]), ())
            if first and found[k].axes[axis]:
                mapping = aligned(first, found[k].axes[axis])
                found = [v.mapped(mapping) for v in found]
    return found


def axes_of(values: Sequence[Value]) -> tuple[tuple[Index, ...], ...]:
    """Return the axes of values that `common` returned, broadcast."""
    return tuple(next((v.axes[k] for v in values if v.axes[k]), ()) for k in range(len(values[0].axes)))


def product(call: Called, values: Sequence[Value], scale: Coefficient = ONE, hint: str = "t") -> Value:
    """Return the product of values, entry by entry."""
    found = common(*values)
    return call.define(axes_of(found), (Term(scale, tuple(v.access for v in found)),), hint)


def total(call: Called, values: Sequence[Value], scales: Sequence[Coefficient], hint: str = "t") -> Value:
    """Return a weighted sum of values, entry by entry."""
    found = common(*values)
    terms = tuple(Term(s, (v.access,)) for v, s in zip(found, scales, strict=True) if s.number)
    return call.define(axes_of(found), terms, hint)


def scaled(call: Called, value: Value, scale: Coefficient, hint: str = "t") -> Value:
    return call.define(value.axes, (Term(scale, (value.access,)),) if scale.number else (), hint)


def quotient(call: Called, left: Value, right: Value, hint: str = "t") -> Value:
    a, b = common(left, right)
    factors = (a.access, replace(b.access, divides=True))
    return call.define(axes_of([a, b]), (Term(ONE, factors),), hint)


def entrywise(call: Called, function: str, value: Value, hint: str = "") -> Value:
    argument = (Term(ONE, (value.access,)),)
    return call.inner(value.axes, Call(function, (), argument), hint or f"{function}_")


def axis_number(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def axis_numbers(axes: int | Sequence[int] | None, rank: int) -> set[int]:
    if isinstance(axes, int):
        axes = [axes]
    return {axis_number(a, rank) for a in axes} if axes else set(range(rank))


def without(value: Value, axes: set[int], keep: bool) -> tuple[tuple[Index, ...], ...]:
    """Return a value's axes with some of them gone, or kept with the length 1."""
    return tuple(() if k in axes else axis for k, axis in enumerate(value.axes) if keep or k not in axes)


def add_up(call: Called, value: Value, axes: set[int], keep: bool, mean: bool = False, hint: str = "t") -> Value:
    """Return the sum, or the mean, along axes."""
    value = value.fresh()
    scale = ONE
    if mean:
        for k in axes:
            for index in value.axes[k]:
                scale *= power_of(index.size, -1)
    left = without(value, axes, keep)
    return call.define(left, (summed(value, left, scale),), hint)


def along(call: Called, function: str, value: Value, axes: set[int], keep: bool, hint: str) -> Value:
    """Return a function along axes: one that uses them up, or one that keeps them."""
    value = value.fresh()
    reducing = kind(function) == REDUCING
    within = set(value.access.indices)
    over = tuple(i for k in sorted(axes) for i in value.axes[k])
    present = tuple(i for i in over if i in within)
    left = without(value, axes, keep) if reducing else value.axes
    _check_places(function, over, value)
    if len(present) < len(over) and function not in ("max", "min"):
        raise UnsayableError(f"{function} along an axis that its argument is constant along")
    if not present:
        return Value(left, value.tensor, value.slots)
    return call.define(left, Call(function, present, (Term(ONE, (value.access,)),), value.where), hint)


def _check_places(function: str, over: Sequence[Index], value: Value) -> None:
    """Raise `UnsayableError` unless conditions leave every row its place on the diagonal."""
    where, within = value.where, set(value.access.indices)
    if not where:
        return
    if not all(i in within for i in over):
        raise UnsayableError("a mask along an axis that its argument is constant along")
    if function not in ("softmax", "logsumexp", "max"):
        raise UnsayableError(f"{function} of minus infinities")
    pairs = {frozenset(c.indices) for c in where}
    for condition in where:
        kept = {"<=": condition.tensor.number >= 0, ">": condition.tensor.number < 0}
        if not kept.get(condition.tensor.relation) or len(pairs) > 1:
            raise UnsayableError("a mask that may leave no place")
        if not any(set(slot) <= set(over) for slot in condition.slots):
            raise UnsayableError("a mask between positions that the function does not run over")


def contracted(call: Called, left: Value, right: Value, axes: tuple[tuple[Index, ...], ...], hint: str) -> Value:
    """Return the product of two values, summed over the indices that `axes` lack."""
    kept = {i for axis in axes for i in axis}
    scale, factors = ONE, (left.access, right.access)
    within = {i for f in factors for i in f.indices}
    for index in dict.fromkeys((*left.indices, *right.indices)):
        if index not in kept and index not in within:
            scale *= power_of(index.size)
    return call.define(axes, (Term(scale, factors),), hint)


def fraction(numerator: int, denominator: int = 1) -> Coefficient:
    return Coefficient(Fraction(numerator, denominator))
