"""`prove`: equal at every size, with a certificate; different, with a counterexample; or undecided, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from polyattn.algebra import Spec
from polyattn.algebra.canonical import collect
from polyattn.errors import BudgetError, ProofError
from polyattn.language import Atoms, Specification
from polyattn.proving.by_laws import has_laws, prove_by_laws
from polyattn.proving.certificate import certificate
from polyattn.proving.certificate_terms import FlatSum, Functions, Letters, sum_text
from polyattn.proving.context import Context
from polyattn.proving.counterexample import counterexample, satisfiable
from polyattn.proving.derivation import Derivation, derived, in_order
from polyattn.proving.evaluation import OWN
from polyattn.proving.given import (
    MAX_GIVEN,
    Given,
    Rule,
    Substitution,
    Symmetry,
    declared_indices,
    resolved,
    size_equations,
)
from polyattn.proving.independent import refusal
from polyattn.proving.isomorphism import Forms, NoWitnessError
from polyattn.proving.question import Question, Side, common_sides, read_questions
from polyattn.proving.renaming import renaming
from polyattn.proving.search import MAX_WORK, Difference, search
from polyattn.proving.sizes import CommonSizes
from polyattn.proving.symmetric import slot_kinds
from polyattn.proving.verdict import Verdict, conditions
from polyattn.proving.work import MAX_PROOF, Meter, SpentError

MAX_GIVEN_LENGTH = 4000

MAX_RENAMED = 3
"""The largest number of parameters whose renamings are tried one by one with the laws of functions."""


def prove(left: Question, right: Question, given: str | Sequence[str] = (), *, effort: int = MAX_WORK) -> Verdict:
    """Decide whether two specifications are the same function of their tensors, at every size.

    The equations of `polyattn.prove`, which takes code too and names the assumptions of a verdict.

    Args:
        left, right: specifications, polynomials, or texts; with the same inputs and an output of the same shape.
        given, effort: as for `polyattn.prove`.

    Raises:
        SpecError, ProofError, BudgetError: as `polyattn.prove`.

    >>> prove("x[N,C]; y[a,b] = x[a,c]*u[c,b]", "x[N,C]; y[a,b] = x[a,c]*w[c,b]").renaming
    {'u': 'w'}
    """
    if not isinstance(effort, int) or isinstance(effort, bool) or effort < 0:
        raise ProofError(f"the effort is a number of monomials, 0 or more, not {effort!r}")
    return ask(left, right, given).verdict(effort)


def ask(left: Question, right: Question, given: str | Sequence[str] = ()) -> Asked:
    """Read and check the question for `prove`; raise the same errors."""
    texts = _given_texts(given)
    specs = read_questions(left, right)
    # The left side comes last, so that its name wins where both sides define a tensor.
    defined = {d.name: name for s, name in ((specs[1], "right"), (specs[0], "left")) for d in s.statements.definitions}
    try:
        sizes = CommonSizes.of([s.statements for s in specs], size_equations(texts))
    except ProofError:  # of two splits of one size, those that do not count are undone
        specs = read_questions(*(Spec(s.statements).polynomial().coarse for s in specs))
        sizes = CommonSizes.of([s.statements for s in specs], size_equations(texts))
    _check_sizes_occur(specs, texts)
    sides = common_sides(*specs, sizes)
    context = _context(sides, sizes, texts, defined)
    equations, context = resolved(texts, context)
    return Asked(sides, sizes, texts, equations, context)


def _given_texts(given: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(given, str | Sequence):
        raise ProofError(f"given is a text or a list of texts, not {type(given).__name__}")
    texts = (given,) if isinstance(given, str) else tuple(given)
    for text in texts:
        if not isinstance(text, str):
            raise ProofError(f"a given equation is text, not {type(text).__name__}")
        if len(text) > MAX_GIVEN_LENGTH:
            raise ProofError(f"a given equation has {len(text):,} characters; the limit is {MAX_GIVEN_LENGTH:,}")
    texts = tuple(dict.fromkeys(texts))
    if len(texts) > MAX_GIVEN:
        raise ProofError(f"{len(texts)} equations are given; the limit is {MAX_GIVEN}")
    return texts


def _check_sizes_occur(specs: tuple[Specification, Specification], texts: Sequence[str]) -> None:
    """Raise ProofError for an equation about a size found on neither side, nor in another given equation."""
    known = {n for spec in specs for n in spec.sizes.names} | {d.size for d in declared_indices(texts)}
    waiting = list(size_equations(texts))
    # Repeated, because an equation may be about a part that another one brings in.
    while fitting := [e for e in waiting if e.size in known]:
        known.update(part for e in fitting for part in e.parts)
        waiting = [e for e in waiting if e not in fitting]
    if waiting:
        raise ProofError(f"{waiting[0].source} is about size {waiting[0].size}, which occurs on neither side")


def _context(sides: tuple[Side, Side], sizes: CommonSizes, texts: Sequence[str], defined: Mapping[str, str]) -> Context:
    shapes: dict[str, tuple[Atoms, ...]] = {**sides[1].shapes, **sides[0].shapes}
    atomic = frozenset(n for s in sides for n in s.spec.sizes.names)
    return Context(shapes, sizes, declared_indices(texts), defined, atomic)


class Asked:
    """A question about two sides, and all given equations."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        sizes: CommonSizes,
        texts: tuple[str, ...],
        given: tuple[Given, ...],
        context: Context,
        renaming: Sequence[str] = (),
    ):
        self.renaming = renaming
        """Texts of the given equations that rename a tensor of the left side."""
        self.sides, self.sizes, self.texts, self.given, self.context = sides, sizes, texts, given, context
        self.groups, self.symmetric = slot_kinds(g for g in given if isinstance(g, Symmetry))
        self.output = sides[0].output

    def verdict(self, effort: int = MAX_WORK) -> Verdict:
        try:
            with Meter(MAX_PROOF).running():
                # Expansion and rewriting count as well: a proof's budget covers everything up to its
                # certificate.
                attempts = self.attempts()
                for left, right in attempts:
                    if left.proves_equal(right):
                        return self.equal(left, right)
                for left, right in attempts:
                    found = self.up_to_names(left, right)
                    if found is not None:
                        return found
        except SpentError:
            return self.answer("undecided", f"a proof takes more than {MAX_PROOF:,} steps")
        left_over = ""
        # One budget for all attempts by laws: the next ones end at once where the first has spent it.
        with Meter(MAX_PROOF).running():
            for left, right in attempts:
                found, left_over = self.by_laws(left, right)
                if found is not None:
                    return found
        if left_over and (found := self.by_laws_up_to_names()) is not None:
            return found
        # The last attempt uses all given equations.
        found = self.search(*attempts[-1], effort)
        if found.status == "undecided" and left_over:
            found = replace(found, reason=f"{found.reason}; {left_over}")
        return found

    def by_laws(self, left: Derivation, right: Derivation) -> tuple[Verdict | None, str]:
        """Return the verdict "equal" by the laws of functions; None, and the rest of the difference, if not."""
        if not (has_laws(left) or has_laws(right)):
            return None, ""
        try:
            with Meter(MAX_PROOF).running():
                given = self.used(left, right)
                attempt = prove_by_laws((left, right), given, self.renaming)
                if attempt.certificate is None:
                    return None, attempt.left_over
                verdict = self.accepted(attempt.certificate, given, "equal by the laws of functions")
        except SpentError:
            return None, f"a proof by the laws of functions takes more than {MAX_PROOF:,} steps"
        return (verdict, "") if verdict else (None, verdict.reason)

    def up_to_names(self, left: Derivation, right: Derivation) -> Verdict | None:
        """Return the verdict "equal" under a renaming of parameters that one side alone has, or None."""
        mine, theirs = (set(side.spec.parameters) for side in self.sides)
        named = {*self.context.defined, *(t for g in self.given for t in g.mentioned), *(mine & theirs)}
        found = renaming(left, right, self.context.shapes, {*self.sides[0].spec.inputs, *named})
        if not found:
            return None
        asked = self.renamed(found)
        for pair in asked.attempts():
            if pair[0].proves_equal(pair[1]):
                verdict = asked.equal(*pair)
                return replace(verdict, given=self.texts, renaming=found) if verdict else None
        return None

    def renamed(self, names: Mapping[str, str]) -> Asked:
        """Return the question with parameters of the left side under other names."""
        equations = []
        for old, new in names.items():
            slots = ",".join(f"i{k + 1}" for k in range(len(self.context.shapes[old])))
            equations.append(f"{old}[{slots}] = {new}[{slots}]" if slots else f"{old} = {new}")
        texts = (*self.texts, *equations)
        given, context = resolved(texts, self.context)
        return Asked(self.sides, self.sizes, texts, given, context, equations)

    def by_laws_up_to_names(self) -> Verdict | None:
        """Return the verdict "equal" by laws under a renaming of a few parameters that one side alone has, or None."""
        mine, theirs = (list(side.spec.parameters) for side in self.sides)
        fixed = {*self.context.defined, *(t for g in self.given for t in g.mentioned), *(set(mine) & set(theirs))}
        mine, theirs = ([name for name in names if name not in fixed] for names in (mine, theirs))
        if not 0 < len(mine) == len(theirs) <= MAX_RENAMED:
            return None
        try:
            # One budget for all of them.
            with Meter(MAX_PROOF).running():
                for order in permutations(theirs):
                    names = dict(zip(mine, order, strict=True))
                    if any(self.context.shapes[old] != self.context.shapes[new] for old, new in names.items()):
                        continue
                    asked = self.renamed(names)
                    verdict, _ = asked.by_laws(*asked.attempts()[-1])
                    if verdict:
                        return replace(verdict, given=self.texts, renaming=names)
        except SpentError:
            pass
        return None

    def attempts(self) -> list[tuple[Derivation, Derivation]]:
        """Return the pairs of derivations, without the given equations first: a proof then uses none needlessly."""
        plain, forms = Forms(self.output, {}), Forms(self.output, self.groups)
        found = [self.pair(plain, (), True)]
        if self.given:
            rules = any(isinstance(g, Rule) for g in self.given)
            # Both orders: a definition may remove the tensors of a rule, or bring them in.
            found += [self.pair(forms, self.given, first) for first in ((True, False) if rules else (False,))]
        return found

    def pair(self, forms: Forms, given: Sequence[Given], rules_first: bool) -> tuple[Derivation, Derivation]:
        left, right = (derived(side, forms, given, rules_first) for side in self.sides)
        if left.proves_equal(right):  # as they stand: there is no need to split them by weak orders
            return left, right
        try:
            return in_order(left, right)
        except BudgetError:  # unsplit forms may still be equal, and are told apart by values
            return left, right

    def answer(self, status, reason: str, **more) -> Verdict:
        return Verdict(status, self.sides[0].text, self.sides[1].text, self.texts, reason, **more)

    def equal(self, left: Derivation, right: Derivation) -> Verdict:
        given = self.used(left, right)
        try:
            found = certificate((left, right), given, self.renaming)
        except NoWitnessError:
            return self.answer("undecided", "the forms are equal, but no certificate can say so: an argument cancels")
        except BudgetError as error:
            return self.answer("undecided", f"the forms are equal, but {error}")
        return self.accepted(found, given)

    def used(self, left: Derivation, right: Derivation) -> list[Given]:
        """Return the given equations that two derivations use."""
        used = {s.given.text for d in (left, right) for s in d.steps if s.given is not None}
        # Symmetries do their work inside canonical forms, so steps do not mention them.
        if left.forms.groups:
            used |= self.symmetric
        given = [g for g in self.given if g.text in used]
        tensors = left.tensors | right.tensors
        return [g for g in given if not isinstance(g, Symmetry) or g.tensor in tensors]

    def accepted(self, found: dict[str, Any], given: Sequence[Given], how: str = "") -> Verdict:
        """Return the verdict "equal" if the independent checker, which has the last word, accepts its certificate."""
        refused = refusal(found)
        if refused:
            reason = f"the forms are equal, but proofs/check.py refuses the certificate: {refused}"
            return self.answer("undecided", reason)
        count = len(found["pairs"])
        reason = f"{count} monomial{'s' * (count != 1)} on each side, one to one"
        reason += f", {how}" if how else ""
        # From contradictory equations anything follows.
        if any(isinstance(g, Rule) for g in given) and not self.satisfiable():
            reason += "; no tensors were found that satisfy all given equations, so this may say nothing"
        return self.answer("equal", reason, certificate=found, where=conditions(found))

    def satisfiable(self) -> bool:
        """Return whether simple tensors satisfy the given equations; these need no functions."""
        shapes = {t: s for t, s in self.context.shapes.items() if any(t in g.mentioned for g in self.given)}
        try:
            return satisfiable(shapes, self.given)
        # Unknown is not a warning: tensors may exist that could not be tried.
        except (BudgetError, KeyError):
            return True

    def search(self, left: Derivation, right: Derivation, effort: int) -> Verdict:
        """Search for a difference after rewriting by the given equations, and for a counterexample of it."""
        mine, theirs = collect(left.terms, self.output), collect(right.terms, self.output)
        # Monomials that both sides have cancel in the difference, which makes every trial cheaper.
        common = set(mine) & set(theirs)
        difference = Difference(
            tuple(t for t in mine if t not in common),
            tuple(t for t in theirs if t not in common),
            self.output,
            self.free_shapes(),
            tuple(g for g in self.given if isinstance(g, Symmetry)),
            tuple(g for g in self.given if isinstance(g, Rule)),
        )
        point, reason = search(difference, self.confirmed, effort)
        if point is None:
            return self.answer("undecided", reason)
        own = sorted({name for side in self.sides for name in side.spec.functions})
        chosen = "".join(f", where {name}(s) = {OWN}" for name in own)
        return self.answer("different", f"the two sides disagree at a point{chosen}", counterexample=point)

    def free_shapes(self) -> dict[str, tuple[str, ...]]:
        """Return the atomic slots of the tensors without a given definition."""
        defined = {g.tensor for g in self.given if isinstance(g, Substitution)}
        return {t: tuple(a for s in slots for a in s) for t, slots in self.context.shapes.items() if t not in defined}

    def forms(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return both sides as expanded text, rewritten by the given equations, and the terms of one side only.

        Raises:
            BudgetError: the rewriting takes too many steps.
        """
        try:
            with Meter(MAX_PROOF).running():
                left, right = self.attempts()[-1]
        except SpentError:
            raise BudgetError(f"rewriting the two sides takes more than {MAX_PROOF:,} steps") from None
        letters = Letters()
        functions = Functions(letters, frozenset(left.tensors | right.tensors))
        lines, terms = {}, {}
        for derivation in (left, right):
            total = FlatSum(derivation.side.signature.output, self.output, "", (), [])
            total.terms = functions.flat(derivation.terms, total.ordered)
            line, names = letters.line(total)
            texts = [sum_text([t], [n]) for t, n in zip(total.terms, names, strict=True)]
            kept = [t for t in derivation.terms if t.coefficient]
            keys = [(derivation.forms.key(t), t.coefficient) for t in kept]
            lines[derivation.side.name] = [line]
            terms[derivation.side.name] = dict(zip(keys, texts, strict=True))
        only = {
            side: [text for key, text in terms[side].items() if key not in terms[other]]
            for side, other in (("left", "right"), ("right", "left"))
        }
        return ({"where": functions.texts()} if functions.texts() else {}) | lines, only

    def confirmed(self, point, entry: Sequence[int] | None = None):
        splits = [(s.size, self.sizes.atoms(s.size)) for s in self.sizes.splits]
        return counterexample(self.sides, self.context.shapes, splits, self.given, point, entry)
