"""An oracle for equality: both texts evaluated modulo a prime, definition by definition, as written.

It is independent of the algebra and the prover: without expansion or canonical form, only numpy on the syntax tree. At
sizes larger than the number of indices of any product, different polynomials agree at a random point with a probability
of at most their degree over the prime. Functions are random-looking polynomial maps, fixed by name and argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import prod

import numpy as np

from polyattn.errors import BudgetError
from polyattn.language import Specification, value_of
from polyattn.language.syntax import IDENTITY, Access, Bracket, Call, Factor, Number, SizeRef, Sum, Term

MAX_CELLS = 2**21
DIVISORS = np.arange(3, 2**16, 2)
Array = np.ndarray
Values = tuple[Array, tuple[str, ...]]
"""An array modulo the prime, with one axis for each of these indices."""


def agree(left: Specification, right: Specification, sizes: Mapping[str, int], seed: int = 0) -> bool:
    """Test if two specifications have one value at a random point, with the same tensors in both.

    Args:
        sizes: a number for every atomic size of both.

    Raises:
        BudgetError: an array would have more than 2^21 entries.
    """
    prime = prime_for(left, right, seed=seed)
    first, second = (value(spec, sizes, seed, prime) for spec in (left, right))
    return first.shape == second.shape and bool(np.all(first == second))


def prime_for(*specs: Specification, seed: int = 0) -> int:
    """Return a prime from 2^30 to 2^31 that divides no number in the texts.

    The texts and the seed draw it, since coefficients are sums of products of these numbers: a fixed prime divides the
    coefficients of some texts, and one of 50 million primes those of a text with a chance below a millionth.
    """
    texts = [str(spec) for spec in specs]
    numbers = {n for spec in specs for d in spec.core for n in _numbers(d.body)} - {0}
    generator = np.random.default_rng([seed, *"".join(texts).encode()])
    while True:
        candidate = int(generator.integers(2**29, 2**30)) * 2 + 1
        if (candidate % DIVISORS).all() and all(n % candidate for n in numbers):
            return candidate


def _numbers(part: Sum | Call | Factor) -> Iterator[int]:
    """The numerators and denominators in a body."""
    if isinstance(part, Number):
        yield from Fraction(part.value).as_integer_ratio()
    elif isinstance(part, Call):
        yield from _numbers(part.argument)
    elif isinstance(part, Sum):
        for term in part.terms:
            for factor in term.factors:
                yield from _numbers(factor)
    elif isinstance(part, Bracket):
        yield from _numbers(part.body)


def value(spec: Specification, sizes: Mapping[str, int], seed: int = 0, prime: int | None = None) -> Array:
    """The output modulo a prime below 2^31, at tensors that only their names, shapes, the seed and the prime fix.

    Args:
        prime: by default the one of `prime_for`.
    """
    prime = prime_for(spec, seed=seed) if prime is None else prime
    tensors: dict[str, Array] = {}
    for name, shape in {**spec.inputs, **spec.parameters}.items():
        numbers = tuple(prod(value_of(spec.sizes.atoms(s), sizes) for s in size.split("*")) for size in shape)
        if prod(numbers) > MAX_CELLS:
            raise BudgetError(f"'{name}' would have {prod(numbers):,} entries; the limit is {MAX_CELLS:,}")
        # Seeded by name: both specifications read the same numbers.
        generator = np.random.default_rng([seed, *name.encode()])
        tensors[name] = generator.integers(0, prime, numbers)
    for definition, letters in zip(spec.core, spec.resolved.index_sizes, strict=True):
        lengths = {i: value_of(atoms, sizes) for i, atoms in letters.items()}
        tensors[definition.name] = _Evaluation(spec, sizes, tensors, lengths, prime).definition(definition)
    return tensors[spec.output]


class _Evaluation:
    """The evaluation of one definition."""

    def __init__(
        self,
        spec: Specification,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Array],
        lengths: Mapping[str, int],
        prime: int,
    ):
        self.spec, self.sizes, self.tensors, self.lengths, self.prime = spec, sizes, tensors, lengths, prime

    def definition(self, definition) -> Array:
        target, body = definition.target.indices, definition.body
        if isinstance(body, Call):
            # The axes of the function go last, so that they are reduced together.
            free = (*(i for i in target if i not in body.over), *body.over)
            array = self.total(body.argument, free)
            over = tuple(range(len(free) - len(body.over), len(free)))
            if body.function == "mean":
                count = int(np.prod([self.lengths[i] for i in body.over], dtype=np.int64))
                array = array.sum(axis=over) % self.prime * pow(count, -1, self.prime) % self.prime
            else:
                array = _opaque(body.function, array, over, self.prime)
            free = free if array.ndim == len(free) else free[: array.ndim]
        else:
            free, array = target, self.total(body, target)
        array = np.transpose(array, [free.index(i) for i in target])
        return array.reshape([int(np.prod([self.lengths[i] for i in s.indices])) for s in definition.target.slots])

    def total(self, body: Sum, free: tuple[str, ...]) -> Array:
        """Sum over the given indices; a product is constant along those absent from it."""
        shape = [self.lengths[i] for i in free]
        if (cells := prod(shape)) > MAX_CELLS:
            raise BudgetError(f"evaluating needs an array of {cells:,} entries; the limit is {MAX_CELLS:,}")
        result = np.zeros(shape, dtype=np.int64)
        for term in body.terms:
            array, indices = self.term(term, set(free))
            result = (result + _aligned(array, indices, free)) % self.prime
        return result

    def term(self, term: Term, free: set[str]) -> Values:
        """Evaluate a product, summed over every index that is not free."""
        number, parts = -1 if term.negative else 1, list[Values]()
        for factor, divide in zip(term.factors, term.divides, strict=True):
            if isinstance(factor, Number | SizeRef):
                scalar = self.scalar(factor)
                number = number * (pow(scalar, -1, self.prime) if divide else scalar) % self.prime
        brackets = [f for f in term.factors if isinstance(f, Bracket)]
        outside = {i for f in term.factors if isinstance(f, Access) for i in f.indices}
        for factor in term.factors:
            if isinstance(factor, Access):
                parts.append(self.access(factor))
            elif isinstance(factor, Bracket):
                # An index that occurs outside the bracket is summed there, not inside.
                others = {i for b in brackets if b is not factor for i in _indices(b)}
                shared = tuple(i for i in _indices(factor) if i in free | outside | others)
                assert isinstance(factor.body, Sum)
                parts.append((self.total(factor.body, shared), shared))
        array, indices = _product(parts, free, self.prime)
        return array * number % self.prime, indices

    def scalar(self, factor: Factor) -> int:
        if isinstance(factor, Number):
            # Modulo a prime, division is multiplication by an inverse.
            fraction = Fraction(factor.value)
            return fraction.numerator * pow(fraction.denominator, -1, self.prime) % self.prime
        assert isinstance(factor, SizeRef)
        return value_of(self.spec.sizes.atoms(factor.size), self.sizes) % self.prime

    def access(self, access: Access) -> Values:
        letters = access.indices
        if access.tensor == IDENTITY:
            rows = int(np.prod([self.lengths[i] for i in access.slots[0].indices]))
            array: Array = np.eye(rows, dtype=np.int64)
        else:
            array = self.tensors[access.tensor]
        array = array.reshape([self.lengths[i] for i in letters])
        # Repeated indices read a diagonal.
        distinct = tuple(dict.fromkeys(letters))
        numbers = [distinct.index(i) for i in letters]
        return np.einsum(array, numbers, list(range(len(distinct)))), distinct


def _product(parts: list[Values], free: set[str], prime: int) -> Values:
    """The product, with one summed index after the other gone, always the one that leaves the smallest array."""
    lengths = {i: array.shape[k] for array, indices in parts for k, i in enumerate(indices)}

    def touched(index: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i for _, indices in parts if index in indices for i in indices))

    while summed := {i for _, indices in parts for i in indices} - free:
        # Sorted, so that ties do not depend on the iteration order of a set.
        index = min(sorted(summed), key=lambda i: prod(lengths[k] for k in touched(i)))
        array, indices = _multiplied([p for p in parts if index in p[1]], prime)
        rest = [p for p in parts if index not in p[1]]
        place = indices.index(index)
        parts = [*rest, (array.sum(axis=place) % prime, (*indices[:place], *indices[place + 1 :]))]
    return _multiplied(parts, prime)


def _multiplied(parts: list[Values], prime: int) -> Values:
    """The product of arrays over all their indices."""
    together = tuple(dict.fromkeys(i for _, indices in parts for i in indices))
    lengths = {i: array.shape[k] for array, indices in parts for k, i in enumerate(indices)}
    if (cells := prod(lengths[i] for i in together)) > MAX_CELLS:
        raise BudgetError(f"evaluating needs an array of {cells:,} entries; the limit is {MAX_CELLS:,}")
    result = np.ones([1] * len(together), dtype=np.int64)
    for array, indices in parts:
        result = result * _aligned(array, indices, together) % prime
    return np.broadcast_to(result, [lengths[i] for i in together]), together


def _aligned(array: Array, indices: tuple[str, ...], wanted: tuple[str, ...]) -> Array:
    """Transpose the array to the wanted order, with axes of length 1 for absent indices."""
    kept = [i for i in wanted if i in indices]
    array = np.transpose(array, [indices.index(i) for i in kept])
    return array.reshape([array.shape[kept.index(i)] if i in indices else 1 for i in wanted])


def _indices(factor: Factor) -> tuple[str, ...]:
    if isinstance(factor, Bracket):
        assert isinstance(factor.body, Sum)
        return tuple(dict.fromkeys(i for t in factor.body.terms for f in t.factors for i in _indices(f)))
    return factor.indices if isinstance(factor, Access) else ()


def _power(array: Array, exponent: int, prime: int) -> Array:
    result = np.ones_like(array)
    # Reduced in each round: a higher power of a residue overflows 64 bits.
    for _ in range(exponent):
        result = result * array % prime
    return result


def _opaque(function: str, array: Array, over: tuple[int, ...], prime: int) -> Array:
    """A map that does not care for the order along the axes that it runs over, and differs from name to name."""
    seed = int(np.random.default_rng(list(function.encode())).integers(3, prime))
    whole = _power((array + seed) % prime, 5, prime).sum(axis=over, keepdims=True) % prime
    if function == "max":
        return _power((np.squeeze(whole, axis=over) + 11) % prime, 3, prime)
    return (_power((array + 7 * seed) % prime, 7, prime) + _power(whole, 3, prime) * (array + seed)) % prime
