"""Given equations: text to definitions, symmetries, rules and sizes, each resolved against the tensors of a question.

Guarantees: every index has a size, every definition defines a tensor once and not by itself, and every rule has
fewer tensors on its right than on its left, so that its application terminates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.monomial import map_tensors
from polyattn.errors import ProofError, SpecError
from polyattn.language import Atoms
from polyattn.language.parser import parse
from polyattn.language.resolve import accesses_of
from polyattn.language.syntax import IDENTITY, Access, Call, IndexSize, Sum
from polyattn.proving.context import Context
from polyattn.proving.sizes import SizeEquation

MAX_GIVEN = 64

# Sizes start with a capital and indices with a small letter: the two patterns cannot both match.
SIZE = re.compile(r"\s*(?:where\s+)?([A-Z][A-Za-z0-9_]*)\s*=\s*([A-Za-z0-9_*\s]+)", re.ASCII)
INDICES = re.compile(r"\s*(?:where\s+)?([a-z][A-Za-z0-9_]*(?:\s*,\s*[a-z][A-Za-z0-9_]*)*)\s*:\s*(\w+)\s*", re.ASCII)
SUMMED = re.compile(r"(?P<left>[^=]*\S)\s+summed\s+over\s+(?P<over>[\w\s,]+?)\s+is\s+(?P<right>.+)", re.ASCII)


@dataclass(frozen=True)
class Substitution:
    """`wf[d,f] = wq[d,r]*wk[f,r]`: the tensor is the sum of the monomials, at the target's indices."""

    text: str
    letters: Mapping[str, Atoms]
    tensor: str
    target: tuple[Index, ...]
    terms: tuple[Monomial, ...]

    @property
    def tensors(self) -> frozenset[str]:
        """Return the tensors of the right side."""
        return frozenset(tensors_of(self.terms))

    @property
    def mentioned(self) -> frozenset[str]:
        """Return the tensors of both sides."""
        return self.tensors | {self.tensor}


@dataclass(frozen=True)
class Symmetry:
    """`adj[k,l] = adj[l,k]`: the entry at (i_0, i_1, ...) is `sign` times that at (i_order[0], i_order[1], ...)."""

    text: str
    letters: Mapping[str, Atoms]
    tensor: str
    order: tuple[int, ...]
    sign: int

    @property
    def mentioned(self) -> frozenset[str]:
        return frozenset({self.tensor})


@dataclass(frozen=True)
class Rule:
    """`u[i,k]*u[j,k] = I[i,j]`: a product with indices summed inside it, and the equal sum."""

    text: str
    letters: Mapping[str, Atoms]
    left: Monomial
    right: tuple[Monomial, ...]
    free: tuple[Index, ...]

    @property
    def tensors(self) -> frozenset[str]:
        return frozenset(tensors_of((self.left, *self.right)))

    @property
    def mentioned(self) -> frozenset[str]:
        return self.tensors


Given = Substitution | Symmetry | Rule


def as_rule(given: Given) -> Rule:
    """Return the equation as a rule for use from left to right."""
    if isinstance(given, Symmetry):
        sizes = [size for atoms in given.letters.values() for size in atoms]
        slots = tuple(Index(k, size) for k, size in enumerate(sizes))
        right = Monomial(Fraction(given.sign), (), (TensorFactor(given.tensor, rearranged(slots, given.order)),))
        return Rule(given.text, {}, access(given.tensor, slots), (right,), slots)
    if isinstance(given, Substitution):
        return Rule(given.text, {}, access(given.tensor, given.target), given.terms, given.target)
    return given


def access(tensor: str, indices: tuple[Index, ...]) -> Monomial:
    """Return an access as a monomial."""
    return Monomial(Fraction(1), (), (TensorFactor(tensor, indices),))


def rearranged(slots: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(slots[k] for k in order)


def exchanges(given: Sequence[Given], tensor: str, order: tuple[int, ...]) -> list[Symmetry] | None:
    """Return given symmetries that, one after the other, put slot `order[k]` at place k for all k; None without any."""
    known = [g for g in given if isinstance(g, Symmetry) and g.tensor == tensor and g.sign == 1]
    start = tuple(range(len(order)))
    found: dict[tuple[int, ...], list[Symmetry]] = {start: []}
    queue = [start]
    # Breadth first, so that the certificate has as few steps as possible.
    while order not in found:
        if not queue:
            return None
        old = queue.pop(0)
        for symmetry in known:
            new = rearranged(old, symmetry.order)
            if new not in found:
                found[new] = [*found[old], symmetry]
                queue.append(new)
    return found[order]


def indices_of(terms: Iterable[Monomial]) -> set[Index]:
    return {i for t in terms for i in t.all_indices()}


@dataclass(frozen=True)
class Statement:
    """A given equation as text in parts, before it is resolved.

    Attributes:
        over: the indices named as summed in the text; None if none is named.
    """

    text: str
    left: Sum
    right: Sum | Call
    over: frozenset[str] | None

    @property
    def is_rule(self) -> bool:
        """Return whether the left side is more than one tensor at different indices (a definition or a symmetry)."""
        target, *more = accesses_of(self.left)
        return self.over is not None or bool(more) or len(set(target.indices)) < len(target.indices)

    @property
    def summed(self) -> tuple[str, ...]:
        """Return the indices summed by a rule on its left: the named ones, or those not on its right."""
        if self.over is not None:
            return tuple(sorted(self.over))
        there = {i for access in accesses_of(self.right) for i in access.indices}
        letters = dict.fromkeys(i for access in accesses_of(self.left) for i in access.indices)
        return tuple(i for i in letters if self.is_rule and i not in there)


def reading(text: str) -> str:
    """Return a given equation with the sums that its left side implies: `A[i,i] = 0` is `A[i,i] summed over i is 0`.

    Equations without implied sums come back unchanged.
    """
    if SIZE.fullmatch(text) or INDICES.fullmatch(text):
        return text
    statement = _statement(text)
    return text if statement.over is not None else with_sums(text, statement.summed)


def with_sums(equation: str, summed: Sequence[str]) -> str:
    """Return an equation with the summed indices of its left side named."""
    left, _, right = _halves(equation)
    return f"{left.strip()} summed over {', '.join(summed)} is {right.strip()}" if summed else equation


def size_equations(given: Sequence[str]) -> tuple[SizeEquation, ...]:
    """Return the equations between sizes."""
    found = []
    for text in given:
        if match := SIZE.fullmatch(text):
            parts = tuple(re.sub(r"\s", "", match[2]).split("*"))
            if not all(re.fullmatch(r"[A-Z]\w*|[1-9]\d{0,8}", part, re.ASCII) for part in parts):
                raise ProofError(f"given {text!r}: a size is a product of sizes and whole numbers")
            found.append(SizeEquation(match[1], parts, f"given {text!r}"))
    return tuple(found)


def declared_indices(given: Sequence[str]) -> tuple[IndexSize, ...]:
    """Return the sizes of indices, `r : R`; they hold in all given equations."""
    found: dict[str, str] = {}
    for text in given:
        if match := INDICES.fullmatch(text):
            for index in re.split(r"\s*,\s*", match[1]):
                if found.setdefault(index, match[2]) != match[2]:
                    raise ProofError(f"given {text!r}: index '{index}' has size {found[index]} by another")
    return tuple(IndexSize(index, size) for index, size in found.items())


def resolved(given: Sequence[str], context: Context) -> tuple[tuple[Given, ...], Context]:
    """Resolve the equations between tensors; each may be about tensors of another.

    Returns:
        The equations, and the context with their new tensors.

    Raises:
        ProofError: an equation does not parse, is about unknown tensors, or defines one twice or by itself.
    """
    pending = [_statement(text) for text in given if not SIZE.fullmatch(text) and not INDICES.fullmatch(text)]
    _check_declared_indices(context, pending)
    found: list[Given] = []
    # In rounds, since the order in which equations are given has no meaning.
    while pending:
        waiting, first = [], None
        for statement in pending:
            try:
                item, context = _resolve(statement, context)
                found.append(item)
            except ProofError as error:
                waiting.append(statement)
                first = first or error
        # A round without progress: the first error is the user's, later ones may follow from it.
        if len(waiting) == len(pending):
            assert first is not None
            raise first
        pending = waiting
    _check_definitions(found)
    # In the order given, whatever the rounds: proofs and certificates follow it.
    return tuple(sorted(found, key=lambda g: given.index(g.text))), context


def _halves(text: str) -> tuple[str, str, str]:
    """Return an equation's sides and the sign between them; the signs of conditions, such as '<=', are not it."""
    left, *rest = re.split(r"(?<![<>=!])=(?!=)", text, maxsplit=1)
    return (left, "=", rest[0]) if rest else (left, "", "")


def _statement(text: str) -> Statement:
    match = SUMMED.fullmatch(text.strip())
    if match:
        over = frozenset(re.split(r"[\s,]+", match["over"].strip(", ")))
        return Statement(text, _left(text, match["left"]), _body(text, match["right"]), over)
    left, equal, right = _halves(text)
    if not equal:
        raise ProofError(
            f"given {text!r} is no equation: 'w[d,f] = u[d,r]*v[f,r]', 'C = G*M', 'r : R' or "
            f"'p[i,k] summed over k is 1' expected"
        )
    return Statement(text, _left(text, left), _body(text, right), None)


def _left(text: str, left: str) -> Sum:
    body = _body(text, left)
    if isinstance(body, Call) or len(body.terms) != 1 or body.terms[0].negative:
        raise ProofError(f"given {text!r}: a tensor or a product of tensors expected on the left")
    if not all(isinstance(f, Access) for f in body.terms[0].factors):
        raise ProofError(f"given {text!r}: only tensors can be multiplied on the left")
    return body


def _body(text: str, part: str) -> Sum | Call:
    if _halves(part)[1] or ";" in part or "\n" in part.strip():
        raise ProofError(f"given {text!r}: one equation with one '=' expected")
    # Parsed as a definition, so that the language's own parser does the work.
    try:
        (definition,) = parse(f"given_ = {part.strip()}").definitions
    except SpecError as error:
        raise ProofError(f"given {text!r}: {error.reason}") from error
    return definition.body


def _resolve(statement: Statement, context: Context) -> tuple[Given, Context]:
    accesses, right = list(accesses_of(statement.left)), list(accesses_of(statement.right))
    for access in (*accesses, *right):
        context.check_free(access.tensor, statement.text)
    for access in accesses:
        context.check_occurs(access.tensor, statement.text)
    target = accesses[0]
    if not statement.is_rule:
        if all(access.tensor != target.tensor for access in right):
            return _definition(statement, target, context)
        return _symmetry(statement, target, context), context
    return _rule(statement, accesses, context)


def _definition(statement: Statement, target: Access, context: Context) -> tuple[Given, Context]:
    if target.tensor == IDENTITY:
        raise ProofError(f"given {statement.text!r}: '{IDENTITY}' is the identity and cannot be defined")
    sizes = context.index_sizes((target,), statement.text)
    right = context.expanded(target.indices, statement.right, sizes, statement.text)
    found = Substitution(statement.text, right.sizes, target.tensor, right.output, right.terms)
    return found, right.context


def _symmetry(statement: Statement, target: Access, context: Context) -> Symmetry:
    terms = statement.right.terms if isinstance(statement.right, Sum) else ()
    factors = [f for term in terms for f in term.factors]
    if len(terms) != 1 or len(factors) != 1 or not isinstance(factors[0], Access):
        raise ProofError(f"given {statement.text!r} is circular: '{target.tensor}' is on both sides")
    other, negative = factors[0], terms[0].negative
    if sorted(other.indices) != sorted(target.indices):
        raise ProofError(f"given {statement.text!r}: a symmetry has the same indices on both sides, in another order")
    if other == target:
        raise ProofError(f"given {statement.text!r} says {'that it is zero' if negative else 'nothing'}")
    sizes = context.index_sizes((target, other), statement.text)
    # Composite indices are exchanged atom by atom.
    atoms = {name: [(name, k) for k in range(len(sizes[name]))] for name in target.indices}
    mine = [a for name in target.indices for a in atoms[name]]
    theirs = [a for name in other.indices for a in atoms[name]]
    order = tuple(mine.index(a) for a in theirs)
    return Symmetry(statement.text, sizes, target.tensor, order, -1 if negative else 1)


def _rule(statement: Statement, accesses: Sequence[Access], context: Context) -> tuple[Given, Context]:
    letters = tuple(dict.fromkeys(i for access in accesses for i in access.indices))
    there = {i for access in accesses_of(statement.right) for i in access.indices}
    summed = frozenset(statement.summed)
    if not summed <= set(letters):
        missing = ", ".join(sorted(summed - set(letters)))
        raise ProofError(f"given {statement.text!r} sums over '{missing}', which its left side does not have")
    if there & summed:
        raise ProofError(f"given {statement.text!r}: '{min(there & summed)}' is summed on the left, and on the right")
    free = tuple(i for i in letters if i not in summed)
    sizes = context.index_sizes(accesses, statement.text)
    left = context.expanded(free, statement.left, sizes, statement.text)
    right = left.context.expanded(free, statement.right, sizes, statement.text)
    if isinstance(statement.right, Call):
        raise ProofError(f"given {statement.text!r}: a product can only be given as a sum, not as a function")
    # Both sides were expanded apart; the right one takes over the left one's free indices.
    names = dict(zip(right.output, left.output, strict=True))
    right_terms = tuple(_renumbered(t, names) for t in right.terms)
    rule = Rule(statement.text, {**left.sizes, **right.sizes}, left.terms[0], right_terms, left.output)
    # Otherwise a rule could be applied to its own result forever.
    if any(_length(t) >= _length(rule.left) for t in right_terms):
        raise ProofError(
            f"given {statement.text!r} can only be used from left to right, and there is no end to that unless the "
            f"right side has fewer tensors than the left"
        )
    return rule, right.context


def _renumbered(term: Monomial, names: dict[Index, Index]) -> Monomial:
    """Return the monomial with its free indices renamed, and its summed ones moved out of their way."""
    start = 1 + max((i.id for i in names.values()), default=-1)
    summed = [i for i in dict.fromkeys(term.all_indices()) if i not in names]
    return term.renamed({**names, **{old: Index(start + k, old.size) for k, old in enumerate(summed)}})


def _length(term: Monomial) -> int:
    return sum(not (isinstance(f, TensorFactor) and f.tensor == IDENTITY) for f in term.factors)


def _check_declared_indices(context: Context, pending: Sequence[Statement]) -> None:
    have = {i for s in pending for body in (s.left, s.right) for a in accesses_of(body) for i in a.indices}
    for declared in context.declared:
        if declared.index not in have:
            raise ProofError(f"given '{declared.index} : {declared.size}': no given equation has that index")


def _check_definitions(given: Iterable[Given]) -> None:
    definitions: dict[str, Substitution] = {}
    for item in given:
        if isinstance(item, Substitution):
            if item.tensor in definitions:
                first = definitions[item.tensor].text
                raise ProofError(f"given {item.text!r} contradicts {first!r}: '{item.tensor}' has two definitions")
            definitions[item.tensor] = item
    for name, item in definitions.items():
        # A walk from each definition finds cycles through others, too.
        seen, queue = set(), [item]
        while queue:
            for tensor in tensors_of(queue.pop().terms):
                if tensor == name:
                    raise ProofError(f"given {item.text!r} is circular: '{name}' is defined by itself")
                if tensor in definitions and tensor not in seen:
                    seen.add(tensor)
                    queue.append(definitions[tensor])


def tensors_of(terms: Iterable[Monomial]) -> set[str]:
    names: set[str] = set()
    for term in terms:
        map_tensors(term, lambda f: names.add(f.tensor))
    return names - {IDENTITY}
