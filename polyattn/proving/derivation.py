"""Derivations: a side's sum, expanded and rewritten by given equations until none applies any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from polyattn.algebra import Monomial
from polyattn.algebra.order import denominators, ordered_sizes, split_by_order
from polyattn.errors import BudgetError
from polyattn.language.conditions import is_condition
from polyattn.proving.given import Given, Rule, Substitution, tensors_of
from polyattn.proving.isomorphism import Forms, gathered
from polyattn.proving.question import Side
from polyattn.proving.rewriting import Use, applied, first_use, normalised, substituted
from polyattn.proving.work import charge

MAX_STEPS = 256


@dataclass(frozen=True)
class Step:
    """One step: its equation, the resulting terms, and these with equal ones gathered.

    Attributes:
        given: the equation used; None for the first step, the expansion of the text.
        use: the place, if the equation is a rule.
    """

    given: Substitution | Rule | None
    use: Use | None
    raw: tuple[Monomial, ...]
    terms: tuple[Monomial, ...]


@dataclass(frozen=True)
class Derivation:
    """A side's steps; the last one's terms are the side's normal form under the given equations.

    Attributes:
        rules_first: whether rules were used before definitions.
        sizes: the sizes whose positions are compared on either side; the normal form is split by weak orders.
        scale: powers of them that both sides are multiplied by, so that neither divides by one.
    """

    side: Side
    forms: Forms
    steps: tuple[Step, ...]
    rules_first: bool = True
    sizes: frozenset[str] = frozenset()
    scale: tuple[tuple[str, int], ...] = ()
    keys: frozenset = field(init=False)

    def __post_init__(self):
        terms = self.steps[-1].terms
        if self.sizes:
            terms = gathered(split_by_order(terms, self.forms.free, self.sizes, dict(self.scale)), self.forms)
        # A set: the order of terms does not matter, and gathered terms have different keys.
        object.__setattr__(self, "keys", frozenset((self.forms.key(t), t.coefficient) for t in terms if t.coefficient))

    @property
    def terms(self) -> tuple[Monomial, ...]:
        return self.steps[-1].terms

    @property
    def tensors(self) -> set[str]:
        """Return all tensors of all steps."""
        rules = (step.given.tensors for step in self.steps if isinstance(step.given, Rule))
        return {t for t in tensors_of(term for step in self.steps for term in step.raw) if not is_condition(t)}.union(
            *rules
        )

    def proves_equal(self, other: Derivation) -> bool:
        return self.keys == other.keys


def in_order(left: Derivation, right: Derivation) -> tuple[Derivation, Derivation]:
    """Return both derivations with normal forms split by the weak orders of positions, if conditions compare any.

    Raises:
        BudgetError: there are too many weak orders.
    """
    terms = (*left.terms, *right.terms)
    sizes = ordered_sizes(terms)
    if not sizes:
        return left, right
    scale = tuple(sorted(denominators(terms, sizes).items()))
    return replace(left, sizes=sizes, scale=scale), replace(right, sizes=sizes, scale=scale)


def derived(side: Side, forms: Forms, given: Sequence[Given] = (), rules_first: bool = True) -> Derivation:
    """Rewrite a side by definitions and rules.

    Args:
        rules_first: use rules before definitions, which may remove the tensors of rules.
    """
    free = frozenset(forms.free)
    raw = tuple(normalised(t, free) for t in side.terms)
    steps = [Step(None, None, raw, gathered(raw, forms))]
    definitions = [g for g in given if isinstance(g, Substitution)]
    rules = [g for g in given if isinstance(g, Rule)]
    # Rewriting always ends, since definitions are not circular and rules shorten terms; the limit is
    # for sums with very many places.
    while len(steps) <= MAX_STEPS:
        terms = steps[-1].terms
        step = _rule_step(terms, forms, rules) if rules_first else None
        step = step or _definition_step(terms, forms, definitions) or _rule_step(terms, forms, rules)
        if step is None:
            return Derivation(side, forms, tuple(steps), rules_first)
        steps.append(step)
    raise BudgetError(f"the {side.name} side is rewritten more than {MAX_STEPS} times")


def _rule_step(terms: tuple[Monomial, ...], forms: Forms, rules: Sequence[Rule]) -> Step | None:
    free = frozenset(forms.free)
    for rule in rules:
        use = first_use(terms, free, rule)
        if use is not None:
            # Only the first use of a rule: certificates record one place a step.
            raw = applied(terms, free, rule, use)
            return Step(rule, use, raw, gathered(raw, forms))
    return None


def _definition_step(terms: tuple[Monomial, ...], forms: Forms, definitions: Sequence[Substitution]) -> Step | None:
    charge(2 * sum(t.length for t in terms))
    used = tensors_of(terms)
    for definition in definitions:
        if definition.tensor in used:
            raw = substituted(terms, frozenset(forms.free), definition)
            return Step(definition, None, raw, gathered(raw, forms))
    return None
