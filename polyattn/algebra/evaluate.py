"""Reference evaluation of a specification in numpy, definition by definition, as written.

Slow and obvious: every product is one `numpy.einsum` without optimisation. It shares no code with the lowering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from polyattn.algebra.conditions import condition_array
from polyattn.algebra.expand import text_products
from polyattn.errors import BudgetError, SizeError
from polyattn.language import Atoms, Specification, value_of
from polyattn.language.conditions import is_condition
from polyattn.language.functions import REDUCING, TABLE, kind
from polyattn.language.syntax import IDENTITY, Access, Call, Definition, SizeRef, Sum

L1_EPSILON = 1e-12
"""`normalize` divides by the larger of the L1 norm and this."""

# The letters of numpy's einsum.
MAX_LETTERS = 52


def evaluate(
    spec: Specification,
    tensors: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    functions: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> np.ndarray:
    """Return the output of a specification; see `Spec.evaluate`."""
    own = dict(functions or {})
    spec.check_functions(own)
    needed = [*spec.inputs, *spec.parameters]
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise SizeError(f"missing tensor{'s' * (len(missing) > 1)}: {', '.join(missing)}")
    unknown = [name for name in tensors if name not in needed]
    if unknown:
        raise SizeError(f"no tensor {unknown[0]!r} in this specification; it has {', '.join(needed)}")
    arrays = {name: np.asarray(tensors[name]) for name in needed}
    # Layers hold scalars as arrays of one entry.
    arrays = {n: a.reshape(()) if a.shape == (1,) and not spec.shape(n) else a for n, a in arrays.items()}
    known = sizes_of(spec, {n: a.shape for n, a in arrays.items()}, sizes)
    # One axis per atom, so that composite slots and plain ones index the same array.
    values = {n: a.reshape([value_of([x], known) for atoms in spec.shape(n) for x in atoms]) for n, a in arrays.items()}
    for number, definition in enumerate(spec.core):
        values[definition.name] = _define(definition, spec.resolved.index_sizes[number], values, known, spec, own)
    return values[spec.output].reshape([value_of(atoms, known) for atoms in spec.shape(spec.output)])


def sizes_of(
    spec: Specification, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Return the number of every size, from the shapes of arrays and from further given sizes.

    Raises:
        SizeError: two shapes contradict each other, or a size remains unknown.
    """
    given: dict[str, int] = dict(sizes or {})
    # Where a number came from, for the message of a contradiction.
    source = dict.fromkeys(given, "the given sizes")
    products = []
    for tensor, shape in shapes.items():
        slots = spec.shape(tensor)
        if len(shape) != len(slots):
            raise SizeError(f"'{tensor}' has {len(slots)} slots, but its array has shape {tuple(shape)}")
        for k, (atoms, number) in enumerate(zip(slots, shape, strict=True)):
            name = spec.sizes.name(atoms)
            # Literal sizes and nameless products say nothing new; they are compared once all sizes are
            # known.
            if name.isdigit() or name not in spec.sizes.names:
                products.append((tensor, k, atoms, number))
                continue
            if given.setdefault(name, number) != number:
                raise SizeError(
                    f"size {name} is {given[name]} by {source[name]}, but {number} by axis {k} of '{tensor}'"
                )
            source.setdefault(name, f"axis {k} of '{tensor}'")
    known = spec.sizes.solve(given, spec.sizes.names)
    for tensor, k, atoms, number in products:
        if value_of(atoms, known) != number:
            raise SizeError(f"axis {k} of '{tensor}' must be {value_of(atoms, known)} long, not {number}")
    return known


def _define(
    definition: Definition,
    letters: Mapping[str, Atoms],
    values: Mapping[str, np.ndarray],
    known: Mapping[str, int],
    spec: Specification,
    own: Mapping[str, Callable[[np.ndarray], np.ndarray]],
) -> np.ndarray:
    axes = [(name, k) for name in definition.target.indices for k in range(len(letters[name]))]
    body = definition.body
    if not isinstance(body, Call):
        return _sum(body, axes, letters, values, known, spec)
    reduced = [(name, k) for name in body.over for k in range(len(letters[name]))]
    if body.function in own:
        return np.asarray(own[body.function](_sum(body.argument, axes, letters, values, known, spec)))
    if kind(body.function) != REDUCING:
        total = _sum(body.argument, axes, letters, values, known, spec)
        return FUNCTIONS[body.function](total, tuple(axes.index(r) for r in reduced))
    # Reduced axes come last, so that their numbers follow from the output's.
    total = _sum(body.argument, [*axes, *reduced], letters, values, known, spec)
    return FUNCTIONS[body.function](total, tuple(range(len(axes), len(axes) + len(reduced))))


def _softmax(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    # The largest power is exp(0): nothing overflows. A row without places, all minus infinity, is 0.
    top = array.max(axis=axes, keepdims=True)
    powers = np.exp(array - np.where(np.isneginf(top), 0, top))
    total = powers.sum(axis=axes, keepdims=True)
    return powers / np.where(total == 0, 1, total)


def _logsumexp(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    top = array.max(axis=axes, keepdims=True)
    return np.log(np.exp(array - top).sum(axis=axes)) + top.squeeze(axes)


def _largest(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    found = array == array.max(axis=axes, keepdims=True)
    return found / found.sum(axis=axes, keepdims=True)


def _log(a: np.ndarray) -> np.ndarray:
    # Minus infinity for the places that conditions leave out.
    return np.where(a == 0, -np.inf, np.log(np.where(a == 0, 1, a)))


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(a / 2)) / 2  # exp(-a) would overflow


def _normal_cdf(a: np.ndarray) -> np.ndarray:
    # The standard library's, entry by entry: numpy has no error function.
    return np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2, otypes=[float])(a)


def _normal_pdf(a: np.ndarray) -> np.ndarray:
    return np.exp(-a * a / 2) / math.sqrt(2 * math.pi)


def _gelu_gate(a: np.ndarray) -> np.ndarray:
    return _sigmoid(math.sqrt(8 / math.pi) * (a + 0.044715 * a**3))


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "softmax": _softmax,
    "normalize": lambda a, axes: a / np.maximum(np.abs(a).sum(axis=axes, keepdims=True), L1_EPSILON),
    "max": lambda a, axes: a.max(axis=axes),
    "min": lambda a, axes: a.min(axis=axes),
    "mean": lambda a, axes: a.mean(axis=axes),
    "sum": lambda a, axes: a.sum(axis=axes),
    "logsumexp": _logsumexp,
    "largest": _largest,
    "relu": lambda a, axes: np.maximum(a, 0),
    "sigmoid": lambda a, axes: _sigmoid(a),
    "exp": lambda a, axes: np.exp(a),
    "log": lambda a, axes: _log(a),
    "sqrt": lambda a, axes: np.sqrt(a),
    "abs": lambda a, axes: np.abs(a),
    "tanh": lambda a, axes: np.tanh(a),
    "silu": lambda a, axes: a * _sigmoid(a),
    "gelu": lambda a, axes: a * _normal_cdf(a),
    "gelu_tanh": lambda a, axes: a * _gelu_gate(a),
    "softplus": lambda a, axes: np.logaddexp(0, a),
    "elu": lambda a, axes: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "sin": lambda a, axes: np.sin(a),
    "cos": lambda a, axes: np.cos(a),
    "reciprocal": lambda a, axes: 1 / a,
    "step": lambda a, axes: np.where(a > 0, 1.0, 0.0),
    "normal_cdf": lambda a, axes: _normal_cdf(a),
    "normal_pdf": lambda a, axes: _normal_pdf(a),
    "gelu_gate": lambda a, axes: _gelu_gate(a),
}
"""Each function of the table in numpy, of an array and the axes that it runs over."""

assert FUNCTIONS.keys() == TABLE.keys()


def _sum(
    total: Sum,
    axes: list[tuple[str, int]],
    letters: Mapping[str, Atoms],
    values: Mapping[str, np.ndarray],
    known: Mapping[str, int],
    spec: Specification,
) -> np.ndarray:
    shape = [value_of([letters[name][k]], known) for name, k in axes]
    result: Any = np.zeros(shape)
    for number, above, below, accesses in text_products(total):
        scale = float(number)
        for ref in above:
            scale *= _size(ref, spec, known)
        for ref in below:
            scale /= _size(ref, spec, known)
        result = result + scale * _product(accesses, axes, letters, values, known)
    return result


def _size(ref: SizeRef, spec: Specification, known: Mapping[str, int]) -> float:
    """Return a size, or the root of a size or a number."""
    if not ref.root:
        return value_of(spec.sizes.atoms(ref.size), known)
    is_size = ref.size[0].isalpha()
    return math.sqrt(value_of(spec.sizes.atoms(ref.size), known) if is_size else Fraction(ref.size))


def _product(
    accesses: tuple[Access, ...],
    axes: list[tuple[str, int]],
    letters: Mapping[str, Atoms],
    values: Mapping[str, np.ndarray],
    known: Mapping[str, int],
) -> np.ndarray:
    """Return one product, broadcast over the axes of no factor."""
    numbers: dict[tuple[str, int], int] = {}
    operands: list[Any] = []
    for access in accesses:
        atoms = [(name, k) for name in access.indices for k in range(len(letters[name]))]
        for atom in atoms:
            numbers.setdefault(atom, len(numbers))
        lengths = [value_of([letters[name][k]], known) for name, k in atoms]
        if is_condition(access.tensor):
            array = condition_array(access.tensor, lengths, known)
        else:
            array = _identity(lengths) if access.tensor == IDENTITY else values[access.tensor]
        operands += [array, [numbers[a] for a in atoms]]
    if len(numbers) > MAX_LETTERS:
        raise BudgetError(
            f"the reference evaluation handles at most {MAX_LETTERS} indices in a product, not {len(numbers)}"
        )
    # The product of nothing is 1, along every axis.
    if not operands:
        return np.ones([1] * len(axes))
    have = [a for a in axes if a in numbers]
    # Without optimisation: one obvious sum, independent of any contraction order.
    array = np.einsum(*operands, [numbers[a] for a in have], optimize=False)
    return array.reshape([array.shape[have.index(a)] if a in have else 1 for a in axes])


def _identity(lengths: list[int]) -> np.ndarray:
    half = lengths[: len(lengths) // 2]
    return np.eye(int(np.prod(half))).reshape(lengths)
