"""Size equations: sizes as products of others, on both sides of a question and in the given equations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from polyattn.algebra.conditions import resized
from polyattn.errors import ProofError
from polyattn.language import Atoms, SizeTable
from polyattn.language.checks import MAX_ATOMS
from polyattn.language.conditions import is_condition, sizes_in
from polyattn.language.sizes import derived, is_name
from polyattn.language.syntax import (
    Access,
    Bracket,
    Call,
    Definition,
    Factor,
    IndexSize,
    Input,
    Number,
    SizeRef,
    Split,
    Statements,
    Sum,
    accesses,
)


@dataclass(frozen=True)
class SizeEquation:
    """`C = G*M`, or `R = K` and `R = 4`: one size replaced by others."""

    size: str
    parts: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class CommonSizes:
    """The common rewriting of both sides: renamed sizes, and splits."""

    names: Mapping[str, str]
    splits: tuple[Split, ...]

    @classmethod
    def of(cls, sides: Iterable[Statements], equations: Iterable[SizeEquation] = ()) -> CommonSizes:
        """Collect the equations; raise ProofError for a size with two different products, or in its own product."""
        sources: dict[str, SizeEquation] = {}
        for name, statements in zip(("the left side", "the right side"), sides, strict=True):
            for split in statements.splits:
                _add(sources, SizeEquation(split.size, split.parts, name))
        for equation in equations:
            _add(sources, equation)
        parts = {e.size: e.parts for e in sources.values()}
        # Before any chain is followed: the check of cycles makes `_final` terminate.
        for equation in sources.values():
            _count_atoms(equation.size, parts, equation.source, (), {})
        names = {size: _final(size, parts) for size, p in parts.items() if len(p) == 1}
        # Sorted, so that both sides get the same splits in the same order.
        splits = tuple(
            Split(size, tuple(_final(p, parts) for p in split))
            for size, split in sorted(parts.items())
            if len(split) > 1
        )
        return cls(names, splits)

    def rewritten(self, statements: Statements) -> Statements:
        """Return the statements over the common sizes."""
        inputs = tuple(Input(i.name, tuple(map(self.size, i.sizes))) for i in statements.inputs)
        declared = tuple(IndexSize(d.index, self.size(d.size)) for d in statements.index_sizes)
        definitions = tuple(Definition(d.target, self.body(d.body)) for d in statements.definitions)
        # Splits are declared only where a size of them occurs: needless declarations would add sizes.
        used = {s for i in inputs for s in i.sizes} | {d.size for d in declared}
        used |= {p for split in statements.splits for p in (split.size, *split.parts)}
        used |= {s for d in definitions for a in accesses(d.body) for s in sizes_in(a.tensor)}
        return Statements(inputs, self.splits_of(used), declared, definitions, statements.functions)

    def size(self, size: str) -> str:
        """Return a size, or a combination of sizes, over the common sizes."""
        if size.isdigit() or is_name(size):
            return self.names.get(size, size)
        values = {s: int(n) if n.isdigit() else n for s in derived(size).sizes for n in [self.names.get(s, s)]}
        return str(derived(size).substitute(values))

    def atoms(self, size: str) -> Atoms:
        """Return a size as its atomic sizes, outermost first."""
        return SizeTable((size,), self.splits).atoms(self.names.get(size, size))

    def splits_of(self, sizes: Iterable[str]) -> tuple[Split, ...]:
        """Return the splits needed by the given sizes."""
        known, needed = {s.size: s for s in self.splits}, set(sizes)
        queue = [s for s in needed if s in known]
        while queue:
            new = [p for p in known[queue.pop()].parts if p not in needed]
            needed.update(new)
            queue += [p for p in new if p in known]
        return tuple(s for s in self.splits if s.size in needed)

    def body(self, body: Sum | Call) -> Sum | Call:
        """Return a right-hand side over the common sizes."""
        if isinstance(body, Call):
            return replace(body, argument=self.total(body.argument))
        return self.total(body)

    def total(self, total: Sum) -> Sum:
        return Sum(tuple(replace(t, factors=tuple(map(self._factor, t.factors))) for t in total.terms))

    def _factor(self, factor: Factor) -> Factor:
        if isinstance(factor, Bracket):
            return Bracket(self.total(factor.body))
        if isinstance(factor, Call):
            return replace(factor, argument=self.total(factor.argument))
        if isinstance(factor, Access) and is_condition(factor.tensor):
            return replace(factor, tensor=resized(factor.tensor, {old: (new,) for old, new in self.names.items()}))
        if isinstance(factor, SizeRef):
            name = self.names.get(factor.size, factor.size)
            if factor.root:
                return SizeRef(name, root=True)
            # A size equal to a number becomes that number in coefficients, too.
            return Number(Fraction(int(name))) if name.isdigit() else SizeRef(name)
        return factor


def sizes_text(letters: Mapping[str, Atoms]) -> dict[str, str]:
    """Return the sizes of indices as products in text, as in certificates."""
    return {letter: "*".join(atoms) for letter, atoms in letters.items()}


def _add(sources: dict[str, SizeEquation], new: SizeEquation) -> None:
    old = sources.setdefault(new.size, new)
    if old.parts != new.parts:
        raise ProofError(
            f"size {new.size} is {'*'.join(old.parts)} by {old.source}, but {'*'.join(new.parts)} by {new.source}"
        )


def _final(size: str, parts: Mapping[str, tuple[str, ...]]) -> str:
    while len(parts.get(size, ())) == 1:
        size = parts[size][0]
    return size


def _count_atoms(
    size: str, parts: Mapping[str, tuple[str, ...]], source: str, above: tuple[str, ...], known: dict[str, int]
) -> int:
    if size in above:
        raise ProofError(f"by {source}, size {size} is a part of itself")
    if size not in known:
        known[size] = sum(_count_atoms(p, parts, source, (*above, size), known) for p in parts.get(size, ())) or 1
        if known[size] > MAX_ATOMS or len(above) > MAX_ATOMS:
            raise ProofError(f"by {source}, size {above[0] if above else size} has more than {MAX_ATOMS} atomic sizes")
    return known[size]
