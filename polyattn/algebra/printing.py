"""Polynomials as statements of the equation language, so that every result of the algebra is a text again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import count, repeat

from polyattn.algebra.conditions import slot_lengths
from polyattn.algebra.monomial import DEFINITION, FunctionFactor, Index, Monomial, Powers, TensorFactor
from polyattn.algebra.polynomial import Polynomial
from polyattn.errors import SpecError
from polyattn.language import Atoms, SizeTable, Specification
from polyattn.language.conditions import is_condition
from polyattn.language.functions import RECIPROCAL, RESERVED, TABLE
from polyattn.language.sizes import ROOT, letter_of
from polyattn.language.syntax import (
    IDENTITY,
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    FunctionName,
    IndexSize,
    Input,
    Number,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
)

_WORD = re.compile(r"[a-zA-Z_]\w*")


def statements_of(polynomial: Polynomial) -> Statements:
    """Return the expanded sum as one definition, after one definition per function.

    Raises:
        SpecError: the polynomial is zero; the language cannot write an empty sum.
    """
    if not polynomial.terms:
        raise SpecError(f"'{polynomial.signature.output}' is zero: there is no term to write")
    return Printer(polynomial).run()


class Printer:
    """Writes a polynomial, with its terms in their order.

    Attributes:
        letters: the atomic size of each written index, by its letter.
    """

    def __init__(self, polynomial: Polynomial):
        self.polynomial, self.signature = polynomial, polynomial.signature
        self.taken = {*self.signature.shapes, self.signature.output, *polynomial.tensors}
        self.letters: dict[str, str] = {}
        self.products: dict[Atoms, str] = {}
        self.functions: list[Definition] = []
        self.known: dict[str, str] = {}

    def run(self) -> Statements:
        sig = self.signature
        inputs = tuple(Input(n, tuple(map(self._size, sig.shapes[n]))) for n in sig.inputs)
        splits = (*sig.sizes.splits, *(Split(name, atoms) for atoms, name in self.products.items()))
        splits = tuple(sorted(splits, key=lambda s: s.size))
        output = sig.output_indices()
        names = self._names(output, {})
        body = self._mentioning(output, self._sum(self.polynomial.terms, names), names)
        target = self._access(sig.output, output, names, sig.output_shape)
        definitions = (*self.functions, Definition(target, body))
        sizes = SizeTable.of(Statements(inputs, splits, (), ()))
        own = sorted({name for d in definitions for name in own_functions(d.body)})
        functions = tuple(map(FunctionName, own))
        bare = Statements(inputs, splits, self._undeclared(sizes), definitions, functions)
        declared = _wheres(self.letters)
        # The shorter text without `where` is preferred if the language infers the same sizes from it.
        return bare if self._resolves_as_meant(bare) else replace(bare, index_sizes=declared)

    def _undeclared(self, sizes: SizeTable) -> tuple[IndexSize, ...]:
        """Declare an index for each size that occurs in coefficients only."""
        missing = sorted({s for t in self.polynomial.terms for s in _sizes_above_and_below(t)} - {*sizes.names})
        letters = self._names((Index(-1, size) for size in missing), {})
        return _wheres({letter: index.size for index, letter in letters.items()})

    def _size(self, atoms: Atoms) -> str:
        """Return the name of a size; invent one for a nameless product, since an input's slot needs one."""
        sizes = self.signature.sizes
        if len(atoms) == 1 or sizes.name(atoms) in sizes.names:
            return sizes.name(atoms)
        stem = "".join(a for a in atoms if not a.isdigit()) or "S"
        # One product keeps one invented name for all slots.
        taken = {*sizes.names, *(name for other, name in self.products.items() if other != atoms)}
        return self.products.setdefault(atoms, next(n for k in count() if (n := f"{stem}{k or ''}") not in taken))

    def _resolves_as_meant(self, statements: Statements) -> bool:
        """Return whether the language, without `where`, infers the polynomial's sizes."""
        try:
            resolved = Specification(statements).resolved
        except SpecError:
            return False
        return all(atoms == (self.letters[index],) for sizes in resolved.index_sizes for index, atoms in sizes.items())

    def _names(self, indices: Iterable[Index], have: dict[Index, str]) -> dict[Index, str]:
        """Return letters for new indices: the size's own, small, numbered; never a name already in use."""
        names = dict(have)
        used = set(names.values())
        for index in dict.fromkeys(indices):
            if index in names:
                continue
            stem = letter_of(index.size)
            for k in count():
                letter = f"{stem}{k or ''}"
                # A letter has one size in the whole text, since `where` statements are global.
                if (
                    letter not in used
                    and letter not in self.taken
                    and self.letters.get(letter, index.size) == index.size
                ):
                    break
            names[index] = letter
            used.add(letter)
            self.letters[letter] = index.size
        return names

    def _sum(self, terms: tuple[Monomial, ...], names: dict[Index, str]) -> Sum:
        return Sum(tuple(map(self._term, terms, repeat(names))))

    def _term(self, term: Monomial, outer: dict[Index, str]) -> Term:
        # Each term starts from the output's letters, so that summed letters are used again.
        names = self._names((i for f in term.factors for i in f.indices), outer)
        factors: list[Factor] = []
        divides: list[bool] = []
        self._coefficient(term, factors, divides)
        for factor in term.factors:
            if isinstance(factor, FunctionFactor):
                factors.append(self._function(factor, names))
            else:
                factors.append(self._tensor(factor, names))
            divides.append(False)
        return Term(term.coefficient < 0, tuple(factors), tuple(divides))

    @staticmethod
    def _mentioning(output: tuple[Index, ...], body: Sum, names: dict[Index, str]) -> Sum:
        """Return the sum with I[n,n] = 1 for each output index in no factor."""
        have = {i for term in body.terms for f in term.factors if isinstance(f, Access) for i in f.indices}
        ones = [_plain(IDENTITY, (names[i], names[i])) for i in output if names[i] not in have]
        *terms, last = body.terms
        divides = (*last.divides, *(False for _ in ones))
        # One term suffices: the language asks for each output index somewhere on the right.
        return Sum((*terms, replace(last, factors=(*last.factors, *ones), divides=divides)))

    @staticmethod
    def _coefficient(term: Monomial, factors: list[Factor], divides: list[bool]) -> None:
        number = abs(term.coefficient)
        powers = readable(term.powers)
        above = [_size_factor(s) for s, e in powers for _ in range(e)]
        below = [_size_factor(s) for s, e in powers for _ in range(-e)]
        below_number = [Number(Fraction(number.denominator))] if number.denominator != 1 else []
        # The language starts a quotient with a number: 1/N, not /N.
        if number.numerator != 1 or ((below or below_number) and not above) or not (above or term.factors):
            above = [Number(Fraction(number.numerator)), *above]
        factors += [*above, *below_number, *below]
        divides += [False] * len(above) + [True] * (len(below) + len(below_number))

    def _tensor(self, factor: TensorFactor, names: dict[Index, str]) -> Access:
        if is_condition(factor.tensor):
            shape = tuple(tuple(i.size for i in slot) for slot in slot_lengths(factor))
            return self._access(factor.tensor, factor.indices, names, shape)
        shape = self.signature.shapes.get(factor.tensor)
        if factor.tensor == IDENTITY or shape is None:
            shape = tuple((i.size,) for i in factor.indices)
        return self._access(factor.tensor, factor.indices, names, shape)

    def _function(self, factor: FunctionFactor, names: dict[Index, str]) -> Access:
        inner = self._names(factor.over, {i: names[i] for i in factor.free})
        argument = self._argument(factor, inner)
        over = tuple(inner[i] for i in factor.over)
        # A function that keeps its indices has them among its slots; a reducing one has not.
        target = tuple(inner[i] for i in factor.free) + (over if factor.at else ())
        call: Call | Sum = argument if factor.function == DEFINITION else Call(factor.function, over, argument)
        if factor.function == RECIPROCAL:
            one = Number(Fraction(1))
            call = Sum((Term(False, (one, Bracket(argument)), (False, True)),))
        read = tuple(names[i] for i in factor.indices)
        key = self._key(f"{factor.function}[{','.join(target)}|{','.join(over)}]", argument)
        if key in self.known:
            return _plain(self.known[key], read)
        # Not a letter either: a bare name equal to an index would be read as an index.
        name = next(name for k in count(1) if (name := f"f{k}") not in self.taken and name not in self.letters)
        self.taken.add(name)
        self.known[key] = name
        self.functions.append(Definition(_plain(name, target), call))
        return _plain(name, read)

    def _key(self, head: str, argument: Sum) -> str:
        """Return a text that only equal functions have: factors and terms sorted, letters numbered as they occur."""

        def blank(part: object) -> str:
            return _WORD.sub(lambda word: "_" if word[0] in self.letters else word[0], str(part))

        def ordered(total: Sum) -> Sum:
            terms = []
            for term in total.terms:
                inner = [replace(f, argument=ordered(f.argument)) if isinstance(f, Call) else f for f in term.factors]
                pairs = sorted(zip(inner, term.divides, strict=True), key=lambda p: (p[1], blank(p[0])))
                terms.append(Term(term.negative, tuple(f for f, _ in pairs), tuple(d for _, d in pairs)))
            return Sum(tuple(sorted(terms, key=blank)))

        numbers: dict[str, str] = {}
        text = f"{head}({ordered(argument)})"
        text = _WORD.sub(lambda w: numbers.setdefault(w[0], f"#{len(numbers)}") if w[0] in self.letters else w[0], text)
        return f"{text} {[self.letters[letter] for letter in numbers]}"

    def _argument(self, factor: FunctionFactor, names: dict[Index, str]) -> Sum:
        """Return the argument's terms, with a zero term for the function's indices that occur in none.

        A sum over an index of one factor is written as a sum where the text would otherwise be ambiguous.
        """
        have = {i for t in factor.terms for i in t.indices()}
        missing = [_plain(IDENTITY, (names[i], names[i])) for i in factor.over if i not in have]
        terms = self._sum(factor.terms, names).terms
        if factor.function not in (*RESERVED, DEFINITION):
            terms = tuple(_with_sums(term, {*names.values()}) for term in terms)
        if missing or not terms:
            # The zero changes no value but mentions the indices, as the language demands.
            zero = (Number(Fraction(0)), *missing)
            terms = (*terms, Term(False, zero, (False,) * len(zero)))
        return Sum(terms)

    @staticmethod
    def _access(tensor: str, indices: tuple[Index, ...], names: dict[Index, str], shape: tuple[Atoms, ...]) -> Access:
        rest = iter(indices)
        return Access(tensor, tuple(Slot(tuple(names[next(rest)] for _ in atoms)) for atoms in shape))


def _wheres(letters: Mapping[str, str]) -> tuple[IndexSize, ...]:
    return tuple(sorted((IndexSize(i, s) for i, s in letters.items()), key=lambda d: (d.size, d.index)))


def _sizes_above_and_below(term: Monomial) -> Iterator[str]:
    """Yield the sizes in a monomial's coefficient and in those inside its functions."""
    yield from (name for size, _ in term.powers if not (name := size.removeprefix(ROOT)).isdigit())
    for factor in term.factors:
        if isinstance(factor, FunctionFactor):
            for inner in factor.terms:
                yield from _sizes_above_and_below(inner)


def readable(powers: Powers) -> Powers:
    """Return powers with 1/√D for √D/D, as people write it."""
    found = dict(powers)
    for root in [s for s in found if s[0] == ROOT and found.get(s[1:], 0) < 0]:
        found[root[1:]] += 1
        found[root] -= 2
    return tuple((s, e) for s, e in found.items() if e)


def own_functions(body: Sum | Call) -> Iterator[str]:
    """Yield the names of functions outside the table that a right-hand side applies."""
    if isinstance(body, Call):
        if body.function not in TABLE:
            yield body.function
        yield from own_functions(body.argument)
        return
    for term in body.terms:
        for factor in term.factors:
            if isinstance(factor, Call):
                yield from own_functions(factor)
            elif isinstance(factor, Bracket):
                yield from own_functions(factor.body)


def _with_sums(term: Term, free: set[str]) -> Term:
    """Return a term of an argument whose indices of one factor are summed by `sum`."""
    counts = Counter(i for f in term.factors if isinstance(f, Access) for i in dict.fromkeys(f.indices))
    alone = tuple(i for i in counts if counts[i] == 1 and i not in free)
    if not alone:
        return term
    summed = Call("sum", alone, Sum((replace(term, negative=False),)))
    return Term(term.negative, (summed,), (False,))


def _size_factor(size: str) -> SizeRef | Call:
    """Return a size as a factor; the root of a size or a number is a call in a text."""
    if size[0] != ROOT:
        return SizeRef(size)
    under = Number(Fraction(size[1:])) if size[1:].isdigit() else SizeRef(size[1:])
    return Call("sqrt", (), Sum((Term(False, (under,), (False,)),)))


def _plain(name: str, indices: tuple[str, ...]) -> Access:
    return Access(name, tuple(Slot((i,)) for i in indices))
