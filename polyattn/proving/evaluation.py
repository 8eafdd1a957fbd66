"""Values of monomials at given sizes and tensors: exact, modulo a prime, or in float64.

One elimination for the three arithmetics. It shares no code with the reference evaluation of the algebra nor with
the lowering, and works on what the proofs work on, the monomials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.errors import BudgetError
from polyattn.language.syntax import IDENTITY

MAX_CELLS = 2**21
"""The largest intermediate array."""

L1_EPSILON = Fraction(1, 10**12)
"""`normalize` divides by the larger of the L1 norm and this, as everywhere."""

PRIME = 2**31 - 1

Axes = tuple[int, ...]
Function = Callable[[np.ndarray, Axes], Any]


def _normalize(array: np.ndarray, axes: Axes) -> Any:
    exact = array.dtype == object
    norm = np.abs(array).sum(axis=axes, keepdims=True)
    smallest: Any = L1_EPSILON if exact else float(L1_EPSILON)
    return (array * Fraction(1) if exact else array) / np.maximum(norm, smallest)


def _softmax(array: np.ndarray, axes: Axes) -> Any:
    powers = np.exp(array - array.max(axis=axes, keepdims=True))
    return powers / powers.sum(axis=axes, keepdims=True)


RATIONAL: Mapping[str, Function] = {
    "normalize": _normalize,
    "max": lambda a, axes: a.max(axis=axes) if axes else a,
    "relu": lambda a, axes: np.maximum(a, 0),
}
TRANSCENDENTAL: Mapping[str, Function] = {"softmax": _softmax, "sigmoid": lambda a, axes: (1 + np.tanh(a / 2)) / 2}


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are represented, and which functions there are values of."""

    dtype: Any
    number: Callable[[Fraction], Any]
    settle: Callable[[np.ndarray], Any] = field(default=lambda array: array)
    functions: Mapping[str, Function] = field(default_factory=dict)


EXACT = Arithmetic(object, lambda q: q.numerator if q.denominator == 1 else q, functions=RATIONAL)
FLOATING = Arithmetic(np.float64, float, functions={**RATIONAL, **TRANSCENDENTAL})
MODULAR = Arithmetic(
    np.int64, lambda q: q.numerator * pow(q.denominator, -1, PRIME) % PRIME, lambda array: array % PRIME
)
"""Exact modulo 2^31 - 1: a value that is not zero here is not zero; no functions."""


@dataclass(frozen=True)
class Point:
    """Numbers for atomic sizes, and an array with one axis per atomic slot for each tensor."""

    sizes: Mapping[str, int]
    tensors: Mapping[str, np.ndarray]

    def length(self, index: Index) -> int:
        return self.sizes[index.size] if index.size in self.sizes else int(index.size)


def evaluate(terms: Iterable[Monomial], output: Sequence[Index], point: Point, arithmetic: Arithmetic) -> np.ndarray:
    """The sum of monomials as an array over the output's indices.

    Raises:
        BudgetError: an intermediate array would have more than 2^21 entries.
    """
    shape = [point.length(i) for i in output]
    _guard(shape)
    total = np.zeros(shape, dtype=arithmetic.dtype)
    for term in terms:
        operands = [_operand(f, point, arithmetic) for f in term.factors]
        array = _contract(operands, tuple(output), point, arithmetic)
        scale = term.coefficient * prod((Fraction(point.sizes[s]) ** e for s, e in term.powers), start=Fraction(1))
        total = _array(arithmetic.settle(total + arithmetic.settle(array * arithmetic.number(scale))), arithmetic)
    return total


Operand = tuple[np.ndarray, tuple[Index, ...]]


def _array(value: Any, arithmetic: Arithmetic) -> np.ndarray:
    """numpy gives bare numbers for arrays without axes."""
    return np.asarray(value, dtype=arithmetic.dtype)


def _guard(shape: Iterable[int]) -> None:
    if (cells := prod(shape)) > MAX_CELLS:
        raise BudgetError(f"evaluating needs an array of {cells:,} entries; the limit is {MAX_CELLS:,}")


def _operand(factor: TensorFactor | FunctionFactor, point: Point, arithmetic: Arithmetic) -> Operand:
    """A factor's values over its distinct indices."""
    if isinstance(factor, TensorFactor):
        if factor.tensor == IDENTITY:
            array: np.ndarray = np.eye(point.length(factor.indices[0]), dtype=int).astype(arithmetic.dtype)
        else:
            array = point.tensors[factor.tensor]
        return _diagonal(array, factor.indices)
    argument = evaluate(factor.terms, (*factor.free, *factor.over), point, arithmetic)
    axes = tuple(range(len(factor.free), argument.ndim))
    value = _array(arithmetic.functions[factor.function](argument, axes), arithmetic)
    return _diagonal(value, factor.indices)


def _diagonal(array: np.ndarray, indices: tuple[Index, ...]) -> Operand:
    distinct = tuple(dict.fromkeys(indices))
    if len(distinct) < len(indices):
        numbers = {i: k for k, i in enumerate(distinct)}
        array = np.einsum(array, [numbers[i] for i in indices], list(range(len(distinct))))
    return array, distinct


def _contract(operands: list[Operand], output: tuple[Index, ...], point: Point, arithmetic: Arithmetic) -> np.ndarray:
    """The product summed over everything but the output's indices, broadcast over those that no factor has."""
    summed = {i for _, indices in operands for i in indices} - set(output)
    while summed:
        index = min(summed, key=lambda i: (_cost(i, operands), i))
        summed.remove(index)
        having = [o for o in operands if index in o[1]]
        operands = [o for o in operands if index not in o[1]]
        array, indices = having[0] if len(having) == 1 else _multiply(having, (), point, arithmetic)
        axis = indices.index(index)
        array = _array(arithmetic.settle(array.sum(axis=axis)), arithmetic)
        operands.append((array, indices[:axis] + indices[axis + 1 :]))
    return _multiply(operands, output, point, arithmetic)[0]


def _cost(index: Index, operands: list[Operand]) -> int:
    lengths = {
        i: n for array, indices in operands if index in indices for i, n in zip(indices, array.shape, strict=True)
    }
    return prod(lengths.values())


def _multiply(
    operands: list[Operand], output: tuple[Index, ...], point: Point, arithmetic: Arithmetic
) -> tuple[np.ndarray, tuple[Index, ...]]:
    """The product over the union of the operands' indices, those of `output` first."""
    union = tuple(dict.fromkeys((*output, *(i for _, indices in operands for i in indices))))
    shape = [point.length(i) for i in union]
    _guard(shape)
    total = _array(1, arithmetic)
    for array, indices in operands:
        order = [indices.index(i) for i in union if i in indices]
        aligned = array.transpose(order).reshape([n if i in indices else 1 for i, n in zip(union, shape, strict=True)])
        total = _array(arithmetic.settle(total * aligned), arithmetic)
    return np.broadcast_to(total, shape), union
