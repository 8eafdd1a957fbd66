"""Values of monomials at given sizes and tensors: exact or enclosed, modulo a prime, or in float64.

One elimination for all arithmetics. It shares no code with the reference evaluation of the algebra nor with the
lowering, and works on monomials, as the proofs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from itertools import count, repeat
from math import erfc, prod, sqrt
from math import pi as math_pi
from typing import Any

import numpy as np
from sympy import isprime

from polyattn.algebra import FunctionFactor, Index, Monomial, TensorFactor
from polyattn.algebra.conditions import condition_array
from polyattn.errors import BudgetError
from polyattn.language.conditions import is_condition
from polyattn.language.functions import TABLE
from polyattn.language.sizes import ROOT, number_of
from polyattn.language.syntax import IDENTITY, is_fixed
from polyattn.proving import enclosed
from polyattn.proving.interval import Interval, Number, exponential, larger
from polyattn.proving.left_out import logarithms, present
from polyattn.proving.work import charge

MAX_CELLS = 2**21
"""The largest intermediate array."""

MAX_ENCLOSED = 10**8
"""The same for intervals, times the square of their digits: an exponential costs about that."""

MAX_AXES = 32
"""The most axes of an array."""

L1_EPSILON = Fraction(1, 10**12)
"""`normalize` divides by the larger of the L1 norm and this, as everywhere."""

# The largest prime below 2^31: a product of two residues fits into int64.
PRIME = 2**31 - 1

Axes = tuple[int, ...]
Function = Callable[[np.ndarray, Axes], Any]
Elementary = Callable[[Any], Any]


def _normalize(array: np.ndarray, axes: Axes) -> Any:
    exact = array.dtype == object
    norm = np.abs(array).sum(axis=axes, keepdims=True)
    # A float beside exact numbers would make the quotient a float.
    smallest: Any = L1_EPSILON if exact else float(L1_EPSILON)
    # Integers become fractions first: Python would divide them as floats.
    return (array * Fraction(1) if exact else array) / _larger(array)(norm, smallest)


def _max(array: np.ndarray, axes: Axes) -> Any:
    for axis in sorted(axes, reverse=True):  # ufuncs of objects reduce one axis at a time
        array = _larger(array).reduce(array, axis=axis)
    return array


def _larger(array: np.ndarray) -> np.ufunc:
    return LARGER if array.dtype == object else np.maximum


def _softmax(array: np.ndarray, axes: Axes, exp: Callable[[Any], Any] = np.exp) -> Any:
    # Shifted by the maximum, so that floats do not overflow; a row without places is 0.
    powers = exp(array - np.expand_dims(present(np.asarray(_max(array, axes))), axes))
    total = powers.sum(axis=axes, keepdims=True)
    return powers / (total + (total == 0) * _unit(total))


OWN = "s^3 + 2*s^2 + 3*s + 5"
"""A function of the user's own where values are computed: one function, at which two sides may differ."""


def _own(array: np.ndarray, axes: Axes) -> Any:
    return ((array + 2) * array + 3) * array + 5


LARGER = np.frompyfunc(larger, 2, 1)


def _reciprocal(array: np.ndarray, axes: Axes) -> Any:
    return np.frompyfunc(enclosed.reciprocal, 1, 1)(array) if array.dtype == object else 1 / array


def _step(array: np.ndarray, axes: Axes) -> Any:
    return np.frompyfunc(enclosed.step, 1, 1)(array) if array.dtype == object else (array > 0).astype(float)


def _share(array: np.ndarray, axes: Axes) -> Any:
    """Return each entry's share of the maximum: equal parts among ties."""
    if any(isinstance(n, Interval) for n in array.flat):
        raise ArithmeticError("the largest of entries that are not exact")
    found = (array == np.expand_dims(_max(array, axes), axes)) * _unit(array)
    return found / found.sum(axis=axes, keepdims=True)


def _unit(array: np.ndarray) -> Any:
    """Return 1 in the array's arithmetic, so that quotients of exact numbers stay exact."""
    return Fraction(1) if array.dtype == object else 1.0


RATIONAL: Mapping[str, Function] = {
    "normalize": _normalize,
    "max": _max,
    "min": lambda a, axes: -_max(-a, axes),
    "largest": _share,
    "relu": lambda a, axes: _larger(a)(a, 0),
    "abs": lambda a, axes: np.abs(a),
    "reciprocal": _reciprocal,
    "step": _step,
}


def _transcendental(
    exp: Elementary,
    log: Elementary,
    root: Elementary,
    sine: Elementary,
    cosine: Elementary,
    bell: Elementary,
    normal: Elementary,
) -> Mapping[str, Function]:
    """Return the functions made of exponentials and other functions of one number."""

    def sigmoid(a: Any) -> Any:
        # It uses its argument once, which keeps an enclosure narrow.
        return _unit(a) / (1 + exp(-a))

    def gate(a: Any) -> Any:
        return sigmoid(4 * bell(0 * a) * (a + a * a * a * (_unit(a) * Fraction("0.044715"))))

    def over_axes(a: Any, axes: Axes) -> Any:
        top = _max(a, axes)
        return log(exp(a - np.expand_dims(top, axes)).sum(axis=axes)) + top

    return {
        "softmax": lambda a, axes: _softmax(a, axes, exp),
        "logsumexp": over_axes,
        "sigmoid": lambda a, axes: sigmoid(a),
        "exp": lambda a, axes: exp(a),
        "log": lambda a, axes: log(a),
        "sqrt": lambda a, axes: root(a),
        "tanh": lambda a, axes: 2 * sigmoid(2 * a) - 1,
        "silu": lambda a, axes: a * sigmoid(a),
        "softplus": lambda a, axes: log(1 + exp(a)),
        "elu": lambda a, axes: _larger(a)(a, 0) + exp(-_larger(a)(-a, 0)) - 1,
        "sin": lambda a, axes: sine(a),
        "cos": lambda a, axes: cosine(a),
        "normal_pdf": lambda a, axes: bell(a),
        "normal_cdf": lambda a, axes: normal(a),
        "gelu": lambda a, axes: a * normal(a),
        "gelu_gate": lambda a, axes: gate(a),
        "gelu_tanh": lambda a, axes: a * gate(a),
    }


def _float_pdf(a: Any) -> Any:
    return np.exp(-a * a / 2) / sqrt(2 * math_pi)


def _float_cdf(a: Any) -> Any:
    return np.vectorize(lambda x: erfc(-x / sqrt(2)) / 2, otypes=[float])(a)


TRANSCENDENTAL = _transcendental(np.exp, np.log, np.sqrt, np.sin, np.cos, _float_pdf, _float_cdf)


@dataclass(frozen=True)
class Arithmetic:
    """A representation of numbers, with its functions, its largest array of intervals, and its roots of integers."""

    dtype: Any
    number: Callable[[Fraction], Any]
    settle: Callable[[np.ndarray], Any] = field(default=lambda array: array)
    functions: Mapping[str, Function] = field(default_factory=dict)
    cells: int = MAX_CELLS
    root: Callable[[int], Any] = sqrt


# Python's integers are faster than fractions of denominator 1.
EXACT = Arithmetic(object, lambda q: q.numerator if q.denominator == 1 else q, functions=RATIONAL)
FLOATING = Arithmetic(np.float64, float, functions={**RATIONAL, **TRANSCENDENTAL})


@cache
def modular(prime: int) -> Arithmetic:
    """Return arithmetic modulo a prime below 2^31, without functions: a nonzero residue proves a nonzero value."""
    return Arithmetic(
        np.int64, lambda q: q.numerator * pow(q.denominator, -1, prime) % prime, lambda array: array % prime
    )


def prime_beside(terms: Iterable[Monomial]) -> int:
    """Return a prime below 2^31 that divides no numerator and no denominator of the coefficients.

    Modulo this prime no coefficient vanishes. The sizes of an evaluation are smaller, so their powers do not either.
    """
    numbers = {n for t in terms for n in (abs(t.coefficient.numerator), t.coefficient.denominator)} - {0}
    # Odd numbers downwards from the largest prime: nearly always the first one fits.
    return next(p for p in count(PRIME, -2) if isprime(p) and all(n % p for n in numbers))


@cache
def enclosing(digits: int) -> Arithmetic:
    """Return arithmetic that is exact up to the first exponential, and uses intervals of this many digits from there
    on."""
    # Fewer cells for more digits: the time of an exponential grows with their square.
    cells = MAX_ENCLOSED // digits**2

    def each(function: Callable[..., Number]) -> Elementary:
        entries = np.frompyfunc(lambda x: function(x, digits), 1, 1)

        def applied(array: Any) -> np.ndarray:
            _guard(np.shape(array), cells)
            # Integers become fractions, so that a quotient of exact entries stays exact.
            return np.asarray(entries(array), dtype=object) * Fraction(1)

        return applied

    functions = _transcendental(
        *map(each, (exponential, enclosed.logarithm, enclosed.root, enclosed.sine, enclosed.cosine)),
        *map(each, (enclosed.normal_pdf, enclosed.normal_cdf)),
    )
    root = partial(enclosed.root, digits=digits)
    return Arithmetic(object, EXACT.number, functions={**RATIONAL, **functions}, cells=cells, root=root)


@dataclass(frozen=True)
class Point:
    """Numbers for atomic sizes, and an array with one axis per atomic slot for each tensor."""

    sizes: Mapping[str, int]
    tensors: Mapping[str, np.ndarray]

    def length(self, index: Index) -> int:
        return number_of(index.size, self.sizes)


def evaluate(terms: Iterable[Monomial], output: Sequence[Index], point: Point, arithmetic: Arithmetic) -> np.ndarray:
    """Return the sum of monomials as an array over the output's indices.

    Raises:
        BudgetError: an intermediate array would have more than 2^21 entries, or more intervals than 10^8 over the
            square of their digits.
    """
    shape = [point.length(i) for i in output]
    _guard(shape, MAX_CELLS)
    total = np.zeros(shape, dtype=arithmetic.dtype)
    for term in terms:
        # Charged before the work, so that a spent meter stops it.
        charge(20 + total.size // 16)
        operands = list(map(_operand, term.factors, repeat(point), repeat(arithmetic)))
        array = _contract(operands, tuple(output), point, arithmetic)
        scale = term.coefficient * prod(
            (Fraction(point.sizes[s]) ** e for s, e in term.powers if s[0] != ROOT), start=Fraction(1)
        )
        factor = arithmetic.number(scale)
        for size, _ in (p for p in term.powers if p[0][0] == ROOT):
            under = size[1:]
            factor = factor * arithmetic.root(int(under) if under.isdigit() else point.sizes[under])
        # Reduced after every step, so that residues never outgrow int64.
        total = _array(arithmetic.settle(total + arithmetic.settle(array * factor)), arithmetic)
    return total


Operand = tuple[np.ndarray, tuple[Index, ...]]


def _array(value: Any, arithmetic: Arithmetic) -> np.ndarray:
    """Return an array; numpy gives bare numbers for arrays without axes."""
    return np.asarray(value, dtype=arithmetic.dtype)


def _guard(shape: Sequence[int], limit: int) -> None:
    if len(shape) > MAX_AXES:
        raise BudgetError(f"evaluating needs an array of {len(shape)} axes; the limit is {MAX_AXES}")
    if (cells := prod(shape)) > limit:
        raise BudgetError(f"evaluating needs an array of {cells:,} entries; the limit is {limit:,}")


def _operand(factor: TensorFactor | FunctionFactor, point: Point, arithmetic: Arithmetic) -> Operand:
    """Return a factor's values over its distinct indices."""
    if isinstance(factor, TensorFactor):
        if factor.tensor == IDENTITY:
            # Checked before the identity is allocated.
            _guard([point.length(i) for i in factor.indices], MAX_CELLS)
            # From integers, so that entries of object arrays are exact.
            array: np.ndarray = np.eye(point.length(factor.indices[0]), dtype=int).astype(arithmetic.dtype)
        elif is_condition(factor.tensor):
            lengths = [point.length(i) for i in factor.indices]
            _guard(lengths, MAX_CELLS)
            array = condition_array(factor.tensor, lengths, point.sizes).astype(arithmetic.dtype)
        else:
            array = point.tensors[factor.tensor]
        return _diagonal(array, factor.indices)
    # The function's own indices come last, so that its axes are known from the number of free ones.
    argument = evaluate(factor.terms, (*factor.free, *factor.over), point, arithmetic)
    axes = tuple(range(len(factor.free), argument.ndim))
    # A mask; logarithms of other constants are numbers, as those of tensors.
    if factor.function == "log" and all(map(_is_fixed, factor.terms)) and all(n in (0, 1) for n in argument.flat):
        return _diagonal(logarithms(argument), factor.indices)
    function = arithmetic.functions[factor.function] if factor.function in TABLE else _own
    # An array without axes would become a bare number within a function.
    value = _array(function(argument, axes) if argument.ndim else function(argument[None], ())[0], arithmetic)
    return _diagonal(value, factor.indices)


def _is_fixed(term: Monomial) -> bool:
    """Return whether a monomial is a product of conditions and identities."""
    return all(isinstance(f, TensorFactor) and is_fixed(f.tensor) for f in term.factors)


def _diagonal(array: np.ndarray, indices: tuple[Index, ...]) -> Operand:
    distinct = tuple(dict.fromkeys(indices))
    if len(distinct) < len(indices):
        numbers = {i: k for k, i in enumerate(distinct)}
        array = np.einsum(array, [numbers[i] for i in indices], list(range(len(distinct))))
    return array, distinct


def _contract(operands: list[Operand], output: tuple[Index, ...], point: Point, arithmetic: Arithmetic) -> np.ndarray:
    """Return the product summed over all indices but the output's, broadcast over output indices of no factor."""
    summed = {i for _, indices in operands for i in indices} - set(output)
    # Greedy elimination: each time the index whose intermediate is smallest.
    costs = {i: _cost([o for o in operands if i in o[1]]) for i in summed}
    charge(len(summed) * (len(summed) + len(operands)) // 8)
    while costs:
        # Ties go to the smaller index, so that the order is the same in every run.
        index = min(costs, key=lambda i: (costs[i], i))
        del costs[index]
        having = [o for o in operands if index in o[1]]
        operands = [o for o in operands if index not in o[1]]
        array, indices = having[0] if len(having) == 1 else _multiply(having, (), point, arithmetic)
        axis = indices.index(index)
        array = _array(arithmetic.settle(array.sum(axis=axis)), arithmetic)
        operands.append((array, indices[:axis] + indices[axis + 1 :]))
        # Only the indices of the new array have another cost now.
        for other in set(indices) & set(costs):
            costs[other] = _cost([o for o in operands if other in o[1]])
    return _multiply(operands, output, point, arithmetic)[0]


def _cost(operands: list[Operand]) -> int:
    """Return the number of entries of the product of these operands."""
    return prod({i: n for array, indices in operands for i, n in zip(indices, array.shape, strict=True)}.values())


def _multiply(
    operands: list[Operand], output: tuple[Index, ...], point: Point, arithmetic: Arithmetic
) -> tuple[np.ndarray, tuple[Index, ...]]:
    """Return the product over the union of the operands' indices, those of `output` first."""
    union = tuple(dict.fromkeys((*output, *(i for _, indices in operands for i in indices))))
    shape = [point.length(i) for i in union]
    # Exact numbers are cheap even where intervals are limited, so the limit asks for an interval first.
    limited = arithmetic.cells < MAX_CELLS and any(isinstance(n, Interval) for a, _ in operands for n in a.flat)
    _guard(shape, arithmetic.cells if limited else MAX_CELLS)
    # Objects cost about eight times as much per entry as machine numbers.
    charge(len(operands) * (10 + prod(shape) // (8 if arithmetic.dtype is object else 64)))
    total = _array(1, arithmetic)
    for array, indices in operands:
        order = [indices.index(i) for i in union if i in indices]
        aligned = array.transpose(order).reshape([n if i in indices else 1 for i, n in zip(union, shape, strict=True)])
        total = _array(arithmetic.settle(total * aligned), arithmetic)
    return np.broadcast_to(total, shape), union
