"""Monomials: a coefficient times a multiset of factors with shared or free indices.

An index is a number with its atomic size. The owner of a monomial knows its free indices (those on the left); all
others are summed within it. A function of polynomials is an opaque factor with its argument beside it, so that
equal functions of equal arguments are recognised as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

from polyattn.errors import BudgetError, SpecError
from polyattn.language.checks import MAX_NESTED
from polyattn.language.functions import REDUCING, kind
from polyattn.language.parser import MAX_NUMBER
from polyattn.language.sizes import ROOT, is_name
from polyattn.language.syntax import IDENTITY


class Index(NamedTuple):
    id: int
    size: str


Powers = tuple[tuple[str, int], ...]
"""Sizes with their exponents, sorted by name, no exponent zero. The root of a size or of a prime number is a name of
its own, `√D`, of exponent 1: its square is D."""


@dataclass(frozen=True)
class TensorFactor:
    """`tensor[indices]`, one index per atomic slot."""

    tensor: str
    indices: tuple[Index, ...]

    def renamed(self, names: Mapping[Index, Index]) -> TensorFactor:
        return TensorFactor(self.tensor, tuple([names.get(i, i) for i in self.indices]))

    def all_indices(self) -> tuple[Index, ...]:
        return self.indices

    @property
    def length(self) -> int:
        return 1


DEFINITION = "="
"""The function of a sum that is kept as one factor: its value is its argument."""


@dataclass(frozen=True, eq=False)
class FunctionFactor:
    """`function[over](terms)`: opaque, but for its argument.

    Functions nest deeply: facts about an argument are stored beside it, so that none needs recursion.

    Attributes:
        function: its name.
        over: the indices the function runs over; bound, so they occur in `terms` only.
        free: the indices shared by the argument and the monomial around it.
        terms: the argument.
        at: for a function that keeps these indices, the index at which each of `over` is read. These differ from
            `over`: softmax over e of s[a,e], read at e = a, is not the softmax of s[a,a].
    """

    function: str
    over: tuple[Index, ...]
    free: tuple[Index, ...]
    terms: tuple[Monomial, ...]
    at: tuple[Index, ...] = ()
    length: int = field(init=False, repr=False)
    depth: int = field(init=False, repr=False)
    _indices: tuple[Index, ...] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self):
        inside = [f for t in self.terms for f in t.factors]
        # Depth, length and indices come from the inner functions' stored facts, one level at a time.
        depth = 1 + max((f.depth for f in inside if isinstance(f, FunctionFactor)), default=0)
        if depth > MAX_NESTED:
            raise BudgetError(f"functions are nested more than {MAX_NESTED} deep")
        indices = dict.fromkeys((*self.over, *self.indices))
        for factor in inside:
            indices |= dict.fromkeys(factor.all_indices())
        # A frozen dataclass forbids plain assignment in its own methods, too.
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "length", 1 + sum(f.length for f in inside))
        object.__setattr__(self, "_indices", tuple(indices))
        # Hashed once, at the bottom: hashing anew would walk the nested arguments at every look-up.
        object.__setattr__(self, "_hash", hash((self.function, self.over, self.free, self.terms, self.at)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return _same(self, other) if isinstance(other, FunctionFactor) else NotImplemented

    def __reduce__(self):
        """Pickle without the hash; hashes of text differ between processes."""
        return FunctionFactor, (self.function, self.over, self.free, self.terms, self.at)

    @property
    def indices(self) -> tuple[Index, ...]:
        """Return the indices of the factor's own slots."""
        return (*self.free, *self.at)

    def renamed(self, names: Mapping[Index, Index]) -> FunctionFactor:
        def move(indices: tuple[Index, ...]) -> tuple[Index, ...]:
            return tuple([names.get(i, i) for i in indices])

        # Unchanged parts are shared, so that renaming is cheap for deeply nested arguments.
        if all(names.get(i, i) == i for i in self._indices):
            return self
        terms = tuple([t.renamed(names) for t in self.terms])
        # Two free indices may be renamed to one.
        return FunctionFactor(
            self.function, move(self.over), tuple(dict.fromkeys(move(self.free))), terms, move(self.at)
        )

    def all_indices(self) -> tuple[Index, ...]:
        """Return the distinct indices, those inside the argument included."""
        return self._indices

    @property
    def local(self) -> frozenset[Index]:
        """Return the indices not summed by the argument's terms: the free ones and those of `over`."""
        return frozenset((*self.free, *self.over))

    @property
    def reduces(self) -> bool:
        return kind(self.function) == REDUCING


Factor = TensorFactor | FunctionFactor

LARGEST = 10**MAX_NUMBER


@dataclass(frozen=True)
class Monomial:
    coefficient: Fraction
    powers: Powers
    factors: tuple[Factor, ...]

    def renamed(self, names: Mapping[Index, Index]) -> Monomial:
        return Monomial(self.coefficient, self.powers, tuple([f.renamed(names) for f in self.factors]))

    def all_indices(self) -> Iterator[Index]:
        """Yield every index, those inside function arguments included; with repetitions."""
        for factor in self.factors:
            yield from factor.all_indices()

    def indices(self) -> tuple[Index, ...]:
        """Return the distinct indices of the factors' slots, in order of appearance; none from inside functions."""
        return tuple(dict.fromkeys(i for f in self.factors for i in f.indices))

    @property
    def length(self) -> int:
        """Return the number of factors, those inside function arguments included."""
        return sum(f.length for f in self.factors)

    @property
    def size(self) -> int:
        """Return the number of factors and indices, those inside function arguments included."""
        return self.length + sum(1 for _ in self.all_indices())

    def scaled(self, coefficient: Fraction, powers: Iterable[tuple[str, int]] = ()) -> Monomial:
        number, more = _numbers_out(self.coefficient * coefficient, multiply_powers(self.powers, powers))
        return Monomial(number, more, self.factors)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sorted names of the tensors and functions among the factors: the same for equal monomials."""
        have = [f.function if isinstance(f, FunctionFactor) else f.tensor for f in self.factors]
        # Identities are left out, because contraction may remove them from one of two equal monomials.
        return tuple(sorted(name for name in have if name != IDENTITY))

    def degree_in(self, tensors: Iterable[str]) -> int:
        """Return the number of factors that are, or are functions of, the given tensors."""
        names = set(tensors)
        return sum(_depends(f, names) for f in self.factors)


def multiply_powers(a: Iterable[tuple[str, int]], b: Iterable[tuple[str, int]]) -> Powers:
    total: dict[str, int] = {}
    for size, exponent in (*a, *b):
        total[size] = total.get(size, 0) + exponent
    for root in [s for s in total if s[0] == ROOT]:
        # Squares leave the root; a number's stays with the coefficient, which is elsewhere.
        size, (whole, rest) = root[1:], divmod(total[root], 2)
        total[size] = total.get(size, 0) + whole
        total[root] = rest
    return tuple(sorted((s, e) for s, e in total.items() if e))


def size_product(sizes: Iterable[str], exponent: int = 1) -> tuple[Fraction, Powers]:
    """Return a product of atomic sizes as a number (from literal sizes) and powers (from named ones)."""
    number, powers = Fraction(1), []
    for size in sizes:
        if size[0] != ROOT and not (size.isdigit() or is_name(size)):
            raise SpecError(
                f"an index over {size} is summed, or averaged, where no tensor has it: its size would be a factor, "
                "and only names of sizes are; declare the tensor that it runs over as an input"
            )
        if size.isdigit():
            number *= Fraction(int(size)) ** exponent
        elif size[0] == ROOT and not size[1:].isidentifier():
            value = Fraction(size[1:])
            for part, sign in ((value.numerator, exponent), (value.denominator, -exponent)):
                square, primes = _root_of(part)
                number *= Fraction(square) ** sign
                powers += [(ROOT + str(p), sign) for p in primes]
        else:
            powers.append((size, exponent))
    return _numbers_out(number, multiply_powers(powers, ()))


def _numbers_out(number: Fraction, powers: Powers) -> tuple[Fraction, Powers]:
    """Move the squares of roots of numbers into the coefficient."""
    for size, exponent in powers:
        if size.isdigit():
            number *= Fraction(int(size)) ** exponent
    return number, tuple(p for p in powers if not p[0].isdigit())


LARGEST_PRIME = 10_000
"""Primes up to here are found in the number under a root; the rest is one factor."""


@lru_cache(maxsize=1024)
def _root_of(number: int) -> tuple[int, tuple[int, ...]]:
    """Return s and different factors f with number = s² * prod(f)."""
    square, primes, prime = 1, [], 2
    while prime * prime <= number and prime <= LARGEST_PRIME:
        count = 0
        while number % prime == 0:
            number, count = number // prime, count + 1
        square *= prime ** (count // 2)
        primes += [prime] * (count % 2)
        prime += 1
    root = isqrt(number)
    if root * root == number:
        return square * root, tuple(primes)
    return square, (*primes, number)


def power_value(size: str, exponent: int, sizes: Mapping[str, int]) -> Fraction:
    """Return a power of a size as a number; an irrational root as a fraction that is exact to 2^-200 of it."""
    if size[0] != ROOT:
        return Fraction(int(size) if size.isdigit() else sizes[size]) ** exponent
    under = int(size[1:]) if size[1:].isdigit() else sizes[size[1:]]
    root = isqrt(under)
    return (Fraction(root) if root * root == under else Fraction(isqrt(under << 400), 1 << 200)) ** exponent


def contract_identities(term: Monomial, free: Iterable[Index]) -> Monomial:
    """Replace indices equal by identities by the smallest of them.

    I[i,j] with a summed j disappears; with two free indices it stays, as the only factor with the larger one.
    """
    keep = set(free)
    factors = list(term.factors)
    number, powers = term.coefficient, term.powers
    position = 0
    while position < len(factors):
        factor = factors[position]
        if not (isinstance(factor, TensorFactor) and factor.tensor == IDENTITY):
            position += 1
            continue
        i, j = factor.indices
        if i == j:
            del factors[position]
            # I[i,i] is 1: without other factors at i, the sum over i counts the entries.
            if i not in keep and not any(i in f.all_indices() for f in factors):
                extra, more = size_product([i.size])
                number, powers = number * extra, multiply_powers(powers, more)
        # A summed index gives way to a free one, whatever their ids.
        elif j not in keep or i not in keep:
            old, new = (j, i) if j not in keep else (i, j)
            factors = [f.renamed({old: new}) for f in factors]
        else:
            old, new = max(i, j), min(i, j)
            factors = [f.renamed({old: new}) for f in factors]
            # Kept, as the one factor with the larger index: a free index may not disappear.
            factors[position] = TensorFactor(IDENTITY, (new, old))
            position += 1
    return Monomial(number, powers, tuple(factors))


def map_tensors(term: Monomial, visit: Callable[[TensorFactor], None]) -> None:
    """Call `visit` on every tensor factor, those inside function arguments included."""
    for factor in term.factors:
        if isinstance(factor, TensorFactor):
            visit(factor)
        else:
            for inner in factor.terms:
                map_tensors(inner, visit)


def _depends(factor: Factor, names: set[str]) -> bool:
    if isinstance(factor, TensorFactor):
        return factor.tensor in names
    return any(_depends(f, names) for term in factor.terms for f in term.factors)


def _same(a: FunctionFactor, b: FunctionFactor) -> bool:
    """Return whether two functions are the same, field by field."""
    # A stack instead of recursion: nesting may be deeper than Python's own limit allows.
    pairs = [(a, b)]
    while pairs:
        a, b = pairs.pop()
        if a is b:
            continue
        # The stored hashes differ for nearly all unequal pairs, so the walk below is rare.
        if a._hash != b._hash or len(a.terms) != len(b.terms):
            return False
        if (a.function, a.over, a.free, a.at) != (b.function, b.over, b.free, b.at):
            return False
        for s, t in zip(a.terms, b.terms, strict=True):
            if (s.coefficient, s.powers, len(s.factors)) != (t.coefficient, t.powers, len(t.factors)):
                return False
            for f, g in zip(s.factors, t.factors, strict=True):
                if isinstance(f, FunctionFactor) and isinstance(g, FunctionFactor):
                    pairs.append((f, g))
                elif f != g:
                    return False
    return True


def monomial_text(term: Monomial) -> str:
    """Return the `repr`, however deeply functions are nested."""
    pieces: list[str] = []
    stack: list[object] = [term]
    while stack:
        item = stack.pop()
        if isinstance(item, Monomial):
            head = f"Monomial(coefficient={item.coefficient!r}, powers={item.powers!r}, factors=("
            stack += reversed([head, *_separated(item.factors), "))"])
        elif isinstance(item, FunctionFactor):
            head = f"FunctionFactor(function={item.function!r}, over={item.over!r}, free={item.free!r}, terms=("
            stack += reversed([head, *_separated(item.terms), f"), at={item.at!r})"])
        else:
            pieces.append(item if isinstance(item, str) else repr(item))
    return "".join(pieces)


def _separated(items: tuple[object, ...]) -> list[object]:
    """Return the items of a tuple with the commas between them."""
    found: list[object] = [part for item in items for part in (item, ", ")]
    # A tuple of one item has a comma at its end; an empty one has none.
    return found[:-1] if len(items) > 1 else [*found[:-1], ","][: 2 * len(items)]


MAX_POWER = 512
"""The largest power of a size."""


def writable(term: Monomial) -> Monomial:
    """Return the monomial itself if a text of the language can express its coefficient.

    Raises:
        BudgetError: the number has more digits than a text may have, or the power of a size is too large.
    """
    if max(abs(term.coefficient.numerator), term.coefficient.denominator) >= LARGEST:
        raise BudgetError(f"a coefficient has more than {MAX_NUMBER} digits; no text of the language could say it")
    for size, exponent in term.powers:
        if abs(exponent) > MAX_POWER:
            raise BudgetError(f"a coefficient has {size} to a power of more than {MAX_POWER}")
    if term.powers and term.powers[0][0].isdigit():
        return Monomial(*_numbers_out(term.coefficient, term.powers), term.factors)
    return term
