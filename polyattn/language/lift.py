"""The core of a specification: functions and quotients only as whole right-hand sides.

`y[a] = exp(q[a,r]*k[r])*v[a]/z[a]` becomes three definitions, so that later stages know nothing of nesting:

    exp1[a] = exp(q[a,r]*k[r])
    over1[a] = reciprocal(z[a])
    y[a] = exp1[a]*v[a]*over1[a]

An argument sums the indices that occur in it alone and join two of its factors. An index of one factor alone could be
summed in the argument or outside of it, and is refused with both spellings. A specification without such factors is its
own core.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import count

from polyattn.errors import SpecError
from polyattn.language.functions import RECIPROCAL, REDUCING, SUMS, TABLE, kind
from polyattn.language.places import everywhere
from polyattn.language.syntax import (
    NOWHERE,
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    Number,
    SizeRef,
    Slot,
    Statements,
    Sum,
    Term,
    accesses,
)


@dataclass(frozen=True)
class Core:
    """Definitions without functions inside products.

    Attributes:
        definitions: in the order of computation; the last is the output.
        origins: for each, the number of the definition of the text that it is a part of.
    """

    definitions: tuple[Definition, ...]
    origins: tuple[int, ...]


def lifted(statements: Statements, source: str = "") -> Core:
    """Return the core of checked statements.

    Raises:
        SpecError: an argument could sum an index in two ways, or a reducing function's index occurs outside of it.
    """
    if not any(map(_is_nested, statements.definitions)):
        return Core(statements.definitions, tuple(range(len(statements.definitions))))
    return _Lifter(replace(statements, definitions=tuple(map(everywhere, statements.definitions))), source).run()


def mentioned(part: object) -> Iterator[str]:
    """Yield the indices of a factor, term or sum in the order of the text, without those that a function uses up."""
    if isinstance(part, Access):
        yield from part.indices
    elif isinstance(part, Bracket):
        yield from mentioned(part.body)
    elif isinstance(part, Call):
        gone = set(part.over) if kind(part.function) == REDUCING else set()
        yield from (i for i in mentioned(part.argument) if i not in gone)
        yield from (i for condition in part.where for i in condition.indices if i not in gone)
    elif isinstance(part, Term):
        for factor in part.factors:
            yield from mentioned(factor)
    elif isinstance(part, Sum):
        for term in part.terms:
            yield from mentioned(term)


def constant_root(call: Call) -> tuple[SizeRef, ...] | None:
    """Return the root of a product of numbers and sizes as factors; None for another call.

    A number above or below is the root of the number: `sqrt(3/D)` is `sqrt(3)/sqrt(D)`, and so on.
    """
    term = _constant(call.argument) if call.function == "sqrt" else None
    return None if term is None else tuple(_root(f) for f in term.factors)


def _root(factor: Factor) -> SizeRef:
    return SizeRef(factor.size if isinstance(factor, SizeRef) else str(factor), factor.at, True)


def _sums_all(call: Call) -> bool:
    """Return whether a whole right-hand side sums every index of one factor inside."""
    row = TABLE.get(call.function)
    return row is not None and (row.legacy or row.name in SUMS)


def _is_nested(definition: Definition) -> bool:
    body = definition.body
    if isinstance(body, Call) and (body.where or not _sums_all(body)):
        return True
    total = body.argument if isinstance(body, Call) else body
    return any(map(_has_functions, total.terms))


def _has_functions(term: Term) -> bool:
    for factor, divide in zip(term.factors, term.divides, strict=True):
        if isinstance(factor, Call) or (divide and isinstance(factor, Access | Bracket)):
            return True
        if isinstance(factor, Bracket) and any(map(_has_functions, factor.body.terms)):
            return True
    return False


@dataclass
class _Lifter:
    statements: Statements
    source: str
    found: list[Definition] = field(default_factory=list)

    def run(self) -> Core:
        self.taken = {d.name for d in self.statements.definitions} | {i.name for i in self.statements.inputs}
        for definition in self.statements.definitions:
            for part in (definition.target, *accesses(definition.body)):
                self.taken |= {part.tensor, *part.indices}
        origins: list[int] = []
        for number, definition in enumerate(self.statements.definitions):
            self.found.append(self.definition(definition))
            origins += [number] * (len(self.found) - len(origins))
        return Core(tuple(self.found), tuple(origins))

    def error(self, reason: str, part: Factor | Call) -> SpecError:
        return SpecError(reason, self.source, part.at.line, part.at.column)

    def definition(self, definition: Definition) -> Definition:
        target, body = definition.target, definition.body
        outside = frozenset(target.indices)
        if isinstance(body, Call) and constant_root(body) is None:
            # As a whole right-hand side, the oldest functions sum every index of one factor inside, as they always did.
            if not _sums_all(body):
                self.check_argument(body, body.argument, outside | set(body.over))
            return Definition(target, replace(body, argument=self.sum(body.argument, outside | set(body.over))))
        total = Sum((Term(False, (body,), (False,), body.at),)) if isinstance(body, Call) else body
        # A quotient alone is its definition: 1/(z[a]) has no product around it.
        if len(total.terms) == 1 and (alone := _reciprocal_of(total.terms[0], outside)):
            self.check_divisor(alone, outside)
            return Definition(target, Call(RECIPROCAL, (), self.sum(_as_sum(alone), outside), alone.at))
        return Definition(target, self.sum(total, outside))

    def sum(self, total: Sum, outside: frozenset[str]) -> Sum:
        return Sum(tuple(self.term(term, outside) for term in total.terms))

    def term(self, term: Term, outside: frozenset[str]) -> Term:
        factors: list[Factor] = []
        divides: list[bool] = []
        have = [frozenset(mentioned(f)) for f in term.factors]
        for k, (factor, divide) in enumerate(zip(term.factors, term.divides, strict=True)):
            around = outside.union(*have[:k], *have[k + 1 :])
            if divide and isinstance(factor, Bracket) and (inner := _constant(factor.body)):
                # 1/(2*N) is a number.
                factors += inner.factors
                divides += [not below for below in inner.divides]
                continue
            if isinstance(factor, Call) and (root := constant_root(factor)) is not None:
                inner = factor.argument.terms[0].divides
                factors += root
                divides += [below != divide for below in inner]
                continue
            if isinstance(factor, Bracket) and not divide:
                factor = Bracket(self.sum(factor.body, around), factor.at)
            elif isinstance(factor, Call):
                # What is divided by is an argument of its own, though a sum within a product is not.
                if divide and factor.function in SUMS:
                    self.check_argument(factor, factor.argument, around | set(factor.over))
                factor = self.call(factor, around)
            if divide and isinstance(factor, Access | Bracket):
                self.check_divisor(factor, around)
                factor, divide = self.reciprocal(factor, around), False
            factors.append(factor)
            divides.append(divide)
        return replace(term, factors=tuple(factors), divides=tuple(divides))

    def call(self, call: Call, around: frozenset[str]) -> Access:
        """Move a call to a definition of its own; return its access."""
        reduces = kind(call.function) == REDUCING
        for index in call.over:
            if reduces and index in around:
                raise self.error(
                    f"'{call.function}' uses up index '{index}', which occurs outside of it as well: "
                    f"give the one inside another letter",
                    call,
                )
        if call.function not in SUMS:
            self.check_argument(call, call.argument, around | set(call.over))
        indices = self.free(
            call.argument, around | (set() if reduces else set(call.over)), call.over if reduces else ()
        )
        argument = self.sum(call.argument, around | set(call.over))
        return self.add(replace(call, argument=argument), indices)

    def reciprocal(self, factor: Access | Bracket, around: frozenset[str]) -> Access:
        total = _as_sum(factor)
        indices = tuple(dict.fromkeys(factor.indices)) if isinstance(factor, Access) else self.free(total, around, ())
        return self.add(Call(RECIPROCAL, (), self.sum(total, around | set(indices)), factor.at), indices)

    def add(self, call: Call, indices: tuple[str, ...]) -> Access:
        stem = "over" if call.function == RECIPROCAL else call.function
        name = next(n for k in count(1) if (n := f"{stem}{k}") not in self.taken)
        self.taken.add(name)
        access = Access(name, tuple(Slot((i,), call.at) for i in indices), call.at)
        self.found.append(Definition(access, call))
        return access

    def free(self, total: Sum, around: Collection[str], bound: Collection[str]) -> tuple[str, ...]:
        """Return the indices of an argument that the product around it has as well."""
        return tuple(i for i in dict.fromkeys(mentioned(total)) if i in around and i not in bound)

    def check_divisor(self, factor: Access | Bracket, around: frozenset[str]) -> None:
        if isinstance(factor, Bracket):
            self.check_argument(factor, factor.body, around)

    def check_argument(self, part: Call | Bracket, argument: Sum, around: Collection[str]) -> None:
        """Refuse an index that could be summed inside of an argument or outside of it."""
        alone: dict[str, Factor] = {}
        joined: set[str] = set()
        _read_argument(argument, alone, joined)
        for index, factor in alone.items():
            if index in around or index in joined:
                continue
            name = part.function if isinstance(part, Call) else ""
            over = f"[{','.join(part.over)}]" if isinstance(part, Call) and part.over else ""
            inside, whole = f"sum[{index}]({argument})", f"{name}{over}({argument})"
            spellings = f"{name}{over}({inside})", f"sum[{index}]({whole})"
            if isinstance(part, Bracket) or name in SUMS:
                spellings = f"1/{spellings[0] if name else inside}", f"sum[{index}](1/{whole})"
            raise self.error(
                f"index '{index}' could be summed inside of this argument or outside: "
                f"write '{spellings[0]}' or '{spellings[1]}'",
                factor if factor.at != NOWHERE else part,
            )


def _read_argument(total: Sum, alone: dict[str, Factor], joined: set[str]) -> None:
    """Collect the indices of an argument that join two factors of a term, and those of one tensor alone."""
    for term in total.terms:
        having: dict[str, list[tuple[Factor, bool]]] = {}
        for factor, divide in zip(term.factors, term.divides, strict=True):
            for index in dict.fromkeys(mentioned(factor)):
                having.setdefault(index, []).append((factor, divide))
        inner: set[int] = set()
        for index, factors in having.items():
            if len(factors) > 1:
                joined.add(index)
                continue
            ((factor, divide),) = factors
            if isinstance(factor, Access):
                alone.setdefault(index, factor)
            # Sums are part of the argument around them; other functions and divisors decide for themselves.
            elif isinstance(factor, Bracket) and not divide and id(factor) not in inner:
                inner.add(id(factor))
                _read_argument(factor.body, alone, joined)
            elif isinstance(factor, Call) and factor.function in SUMS and id(factor) not in inner:
                inner.add(id(factor))
                _read_sum(factor, alone, joined)


def _read_sum(call: Call, alone: dict[str, Factor], joined: set[str]) -> None:
    inside: dict[str, Factor] = {}
    both: set[str] = set()
    _read_argument(call.argument, inside, both)
    alone |= {i: f for i, f in inside.items() if i not in call.over}
    joined |= both - set(call.over)


def _reciprocal_of(term: Term, outside: frozenset[str]) -> Access | Bracket | None:
    """Return the divisor of a term that is 1 over a bracket, or over a tensor without summed indices."""
    if term.negative or term.divides != (False, True):
        return None
    one, factor = term.factors
    if isinstance(factor, Bracket) and _constant(factor.body):
        return None
    if not (isinstance(one, Number) and one.value == Fraction(1)):
        return None
    if isinstance(factor, Access):
        return factor if outside.issuperset(factor.indices) else None
    return factor if isinstance(factor, Bracket) else None


def _constant(total: Sum) -> Term | None:
    """Return the one term of a sum that is a positive product of numbers and sizes."""
    if len(total.terms) != 1 or total.terms[0].negative:
        return None
    (term,) = total.terms
    return term if all(isinstance(f, Number | SizeRef) for f in term.factors) else None


def _as_sum(factor: Access | Bracket) -> Sum:
    return factor.body if isinstance(factor, Bracket) else Sum((Term(False, (factor,), (False,), factor.at),))
