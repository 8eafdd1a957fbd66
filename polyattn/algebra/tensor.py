"""The explicit interaction tensor W of a polynomial layer.

`y[a,b] = sum W[a,b, c,d, e,f, g,h] x[c,d] x[e,f] x[g,h]` (Poly-NL, Eq. 5), order 2(D+1) at degree D. Only for
small sizes: every explicit object is guarded by a budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from polyattn.algebra.conditions import condition_array
from polyattn.algebra.expand import Expansion
from polyattn.algebra.monomial import FunctionFactor, Index, Monomial, TensorFactor, power_value
from polyattn.errors import BudgetError, NotPolynomialError, SizeError
from polyattn.language import Atoms, Specification, value_of
from polyattn.language.conditions import is_condition
from polyattn.language.syntax import IDENTITY, is_fixed

if TYPE_CHECKING:
    import sympy

DEFAULT_BUDGET = 2**30
MAX_ENTRIES = 1_000_000
"""The most index assignments that a symbolic tensor is computed from."""


def interaction_tensor(
    spec: Specification,
    expansion: Expansion,
    sizes: Mapping[str, int],
    parameters: Mapping[str, Any],
    degree: int | None = None,
    budget: int | None = None,
) -> np.ndarray:
    """Return W as a numpy array; see `Spec.interaction_tensor`."""
    degree, x = _check(spec, expansion, degree)
    known = spec.sizes.solve(sizes, spec.sizes.names)
    output_shape = [value_of(atoms, known) for atoms in spec.shape(spec.output)]
    shape = output_shape + [value_of(atoms, known) for atoms in spec.shape(x)] * degree
    _guard(shape, 8, budget)
    arrays = {name: _parameter(spec, name, parameters, known) for name in spec.parameters}
    unknown = [name for name in parameters if name not in arrays]
    if unknown:
        raise SizeError(f"no parameter {unknown[0]!r} in this specification; it has {', '.join(arrays)}")
    # At least float64; complex parameters keep their imaginary part.
    dtype = np.result_type(np.float64, *(a.dtype for a in arrays.values()))
    # One mode per atom; composite slots are put together at the end.
    tensor = np.zeros([value_of([i.size], known) for i in expansion.output + _x_atoms(spec, x) * degree], dtype)
    for term in expansion.terms:
        if term.degree_in([x]) == degree:
            _add_term(tensor, term, expansion.output, x, arrays, known)
    return tensor.reshape(shape)


def interaction_entries(
    spec: Specification,
    expansion: Expansion,
    sizes: Mapping[str, int],
    degree: int | None = None,
    budget: int | None = None,
) -> dict[tuple[int, ...], sympy.Expr]:
    """Return the nonzero entries of W as sympy expressions in the parameters' entries; see
    `Spec.interaction_tensor`."""
    import sympy  # takes seconds to import, and no other part of a specification needs it

    symbols = symbolic_parameters(spec, spec.sizes.solve(sizes, spec.sizes.names))

    def product_of(parameters: Product, number: Fraction) -> sympy.Expr:
        return sympy.Mul(sympy.Rational(number.numerator, number.denominator), *(symbols[n][k] for n, k in parameters))

    terms = interaction_terms(spec, expansion, sizes, degree, budget)
    return {place: sympy.Add(*(product_of(p, c) for p, c in entry.items())) for place, entry in terms.items()}


Place = tuple[int, ...]
Product = tuple[tuple[str, Place], ...]
"""A product of parameters' entries, each with its place, sorted."""


def interaction_terms(
    spec: Specification,
    expansion: Expansion,
    sizes: Mapping[str, int],
    degree: int | None = None,
    budget: int | None = None,
) -> dict[Place, dict[Product, Fraction]]:
    """Return the nonzero entries of W, each as a sum of products of the parameters' entries with their coefficients."""
    degree, x = _check(spec, expansion, degree)
    known = spec.sizes.solve(sizes, spec.sizes.names)
    _guard([value_of(atoms, known) for atoms in spec.shape(spec.output) + spec.shape(x) * degree], 8, budget)
    entries: dict[Place, dict[Product, Fraction]] = {}
    for term in expansion.terms:
        if term.degree_in([x]) == degree:
            _collect_entries(entries, spec, term, expansion.output, x, known)
    # Products may cancel between terms: their zeros go here, not while adding.
    nonzero = {place: {p: c for p, c in entries[place].items() if c} for place in sorted(entries)}
    return {place: entry for place, entry in nonzero.items() if entry}


def symbolic_parameters(spec: Specification, known: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return, for each parameter, an object array of symbols, such as w1_0_2; a scalar is one symbol of its own name.

    If two entries would share a symbol, as w_1[0] and w[1,0] do, all are written with brackets instead.
    """
    shapes = {name: [value_of(a, known) for a in spec.shape(name)] for name in spec.parameters}
    if (symbols := sum(map(prod, shapes.values()))) > MAX_ENTRIES:
        raise BudgetError(f"the parameters would be {symbols:,} symbols; the limit is {MAX_ENTRIES:,}")
    names = ["_".join([name, *map(str, k)]) for name, shape in shapes.items() for k in np.ndindex(*shape)]
    brackets = len(set(names)) < len(names)
    return {name: symbol_array(name, shape, brackets) for name, shape in shapes.items()}


def symbol_array(name: str, shape: Sequence[int], brackets: bool = False) -> np.ndarray:
    import sympy

    array = np.empty(tuple(shape), dtype=object)
    for index in np.ndindex(*array.shape):
        place = f"{name}[{','.join(map(str, index))}]" if index and brackets else "_".join([name, *map(str, index)])
        array[index] = sympy.Symbol(place)
    return array


def _check(spec: Specification, expansion: Expansion, degree: int | None) -> tuple[int, str]:
    if any(isinstance(f, FunctionFactor) for t in expansion.terms for f in t.factors):
        raise NotPolynomialError("the specification applies functions, so it has no interaction tensor")
    if len(spec.inputs) != 1:
        raise NotPolynomialError(
            f"an interaction tensor has one input, not {len(spec.inputs)}: {', '.join(spec.inputs)}"
        )
    (x,) = spec.inputs
    degrees = sorted({t.degree_in([x]) for t in expansion.terms})
    if degree is None:
        if len(degrees) != 1:
            raise NotPolynomialError(f"the terms have the degrees {degrees}: choose one tensor with degree=")
        return degrees[0], x
    if degree not in degrees:
        raise NotPolynomialError(f"no term has degree {degree}: the degrees are {degrees}")
    return degree, x


def _guard(shape: Sequence[int], itemsize: int, budget: int | None) -> None:
    limit = DEFAULT_BUDGET if budget is None else budget
    size = prod(shape) * itemsize
    if size > limit:
        raise BudgetError(
            f"the explicit tensor of shape {' x '.join(map(str, shape))} has {prod(shape):,} entries and would need "
            f"{size / 2**30:.3g} GiB; the budget is {limit / 2**30:.3g} GiB (budget=... raises it)"
        )


def _parameter(spec: Specification, name: str, parameters: Mapping[str, Any], known: Mapping[str, int]) -> np.ndarray:
    if name not in parameters:
        raise SizeError(f"parameter '{name}' is missing; the parameters are {', '.join(spec.parameters)}")
    value = parameters[name]
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)  # a trained layer's, without torch here
    shape = tuple(value_of(atoms, known) for atoms in spec.shape(name))
    if array.shape != shape:
        raise SizeError(f"parameter '{name}' must have shape {shape}, not {array.shape}")
    return array.reshape([value_of([a], known) for atoms in spec.shape(name) for a in atoms])


def _x_atoms(spec: Specification, x: str) -> tuple[Index, ...]:
    return tuple(Index(-1, a) for atoms in spec.shape(x) for a in atoms)


def _coefficient(term: Monomial, known: Mapping[str, int]) -> Fraction:
    number = term.coefficient
    for size, exponent in term.powers:
        number *= power_value(size, exponent, known)
    return number


def _tensors(term: Monomial) -> tuple[TensorFactor, ...]:
    """Return the factors of a monomial without functions."""
    return tuple(f for f in term.factors if isinstance(f, TensorFactor))


def _modes(term: Monomial, output: tuple[Index, ...], x: str) -> list[Index]:
    """Return the index of each atomic mode of W: the output's, then each x's slots in the order of the text."""
    return [*output, *(i for f in _tensors(term) if f.tensor == x for i in f.indices)]


def _add_term(
    tensor: np.ndarray,
    term: Monomial,
    output: tuple[Index, ...],
    x: str,
    arrays: Mapping[str, np.ndarray],
    known: Mapping[str, int],
) -> None:
    """Add one monomial: its parameters' product goes to the generalised diagonal of modes with one index."""
    factors = [f for f in _tensors(term) if f.tensor != x]
    add_to_diagonal(tensor, _modes(term, output, x), factors, float(_coefficient(term, known)), arrays, known)


def add_to_diagonal(
    tensor: np.ndarray,
    modes: Sequence[Index],
    factors: Sequence[TensorFactor],
    scale: float,
    arrays: Mapping[str, np.ndarray],
    known: Mapping[str, int],
) -> None:
    """Add a product of arrays to the entries of a tensor at which modes of one index agree.

    Args:
        modes: the index of each mode of the tensor.
        factors: the product; indices of no mode are summed.
    """
    distinct = list(dict.fromkeys(modes))
    inner = [i for f in factors for i in f.indices]
    numbers = {i: k for k, i in enumerate(dict.fromkeys([*distinct, *inner]))}
    operands: list[Any] = []
    for factor in factors:
        if factor.tensor == IDENTITY:
            operands += [np.eye(value_of([factor.indices[0].size], known)), [numbers[i] for i in factor.indices]]
        elif is_condition(factor.tensor):
            lengths = [value_of([i.size], known) for i in factor.indices]
            operands += [condition_array(factor.tensor, lengths, known), [numbers[i] for i in factor.indices]]
        else:
            operands += [arrays[factor.tensor], [numbers[i] for i in factor.indices]]
    inside = {i for op in operands[1::2] for i in op}
    # Only indices that some operand has can be in einsum's output; the others are broadcast below.
    have = [i for i in distinct if numbers[i] in inside]
    value = np.einsum(*operands, [numbers[i] for i in have]) if operands else np.ones(())
    summed_elsewhere = value.reshape([value.shape[have.index(i)] if i in have else 1 for i in distinct])
    # A view on the diagonal: moving along an index moves along all of its modes at once.
    strides = [sum(tensor.strides[m] for m, j in enumerate(modes) if j == i) for i in distinct]
    lengths = [value_of([i.size], known) for i in distinct]
    diagonal = np.lib.stride_tricks.as_strided(tensor, lengths, strides)
    diagonal += scale * summed_elsewhere


def _collect_entries(
    entries: dict[Place, dict[Product, Fraction]],
    spec: Specification,
    term: Monomial,
    output: tuple[Index, ...],
    x: str,
    known: Mapping[str, int],
) -> None:
    modes = _modes(term, output, x)
    distinct = list(dict.fromkeys([*modes, *term.indices()]))
    lengths = [value_of([i.size], known) for i in distinct]
    # The product over all indices is enumerated in Python.
    if prod(lengths) > MAX_ENTRIES:
        raise BudgetError(f"the symbolic tensor needs {prod(lengths):,} products; the limit is {MAX_ENTRIES:,}")
    tensors = _tensors(term)
    slots = spec.shape(spec.output) + spec.shape(x) * sum(f.tensor == x for f in tensors)
    place_in_w = _place_reader(modes, slots, distinct, known)
    identities = [tuple(distinct.index(i) for i in f.indices) for f in tensors if f.tensor == IDENTITY]
    parameters = [
        (f.tensor, _place_reader(f.indices, spec.shape(f.tensor), distinct, known))
        for f in tensors
        if f.tensor != x and not is_fixed(f.tensor)
    ]
    conditions = [
        (
            condition_array(f.tensor, [lengths[distinct.index(i)] for i in f.indices], known),
            [*map(distinct.index, f.indices)],
        )
        for f in tensors
        if is_condition(f.tensor)
    ]
    coefficient = _coefficient(term, known)
    for values in product(*map(range, lengths)):
        if all(values[i] == values[j] for i, j in identities) and all(
            array[tuple(values[k] for k in at)] for array, at in conditions
        ):
            entry = entries.setdefault(place_in_w(values), {})
            factors = tuple(sorted((name, place(values)) for name, place in parameters))
            entry[factors] = entry.get(factors, Fraction(0)) + coefficient


def _place_reader(
    indices: Sequence[Index], slots: Sequence[Atoms], distinct: Sequence[Index], known: Mapping[str, int]
) -> Callable[[Sequence[int]], Place]:
    """Return a function from the values of the distinct indices to a place: one number per slot, the outer part
    first."""
    rest = iter(indices)
    parts: list[list[tuple[int, int]]] = []
    for atoms in slots:
        lengths = [value_of([a], known) for a in atoms]
        parts.append([(distinct.index(next(rest)), prod(lengths[k + 1 :])) for k in range(len(atoms))])
    # The common case without composite slots is read in one pass.
    if all(len(slot) == 1 for slot in parts):
        numbers = [k for ((k, _),) in parts]
        return lambda values: tuple([values[k] for k in numbers])
    return lambda values: tuple([sum(values[k] * stride for k, stride in slot) for slot in parts])
