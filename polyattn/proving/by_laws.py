"""Equality by the laws of functions: both sides in their normal forms, then over common denominators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polyattn.algebra import FunctionFactor
from polyattn.errors import BudgetError, ProofError
from polyattn.proving.certificate_terms import FlatSum, renumbered, sum_text
from polyattn.proving.chosen import in_order, inverses
from polyattn.proving.denominators import cross_multiply, rest
from polyattn.proving.derivation import Derivation
from polyattn.proving.given import Given, tensors_of
from polyattn.proving.isomorphism import NoWitnessError
from polyattn.proving.lawful import LawfulProof
from polyattn.proving.laws import ZeroDenominatorError, rows, rows_with_norms

SHOWN = 3
"""The number of terms shown of a difference."""


@dataclass(frozen=True)
class Attempt:
    """Result of a proof by laws: its certificate, or the rest of the difference."""

    certificate: dict[str, Any] | None
    left_over: str = ""
    norms: bool = False
    """Whether there are norms with a least value, which have a law above it."""


def has_laws(derivation: Derivation) -> bool:
    """Return whether a side has functions."""
    return any(isinstance(f, FunctionFactor) for t in derivation.terms for f in t.factors)


def prove_by_laws(
    derivations: tuple[Derivation, Derivation], given: Sequence[Given], renaming: Sequence[str] = ()
) -> Attempt:
    """Try to prove two sides equal by the laws of functions.

    Raises:
        ProofError: a denominator is 0 whatever its tensors are.
    """
    first = _attempt(derivations, given, renaming, rows)
    if first.certificate is not None or not first.norms:
        return first
    # With a condition for each norm, since without none was found.
    second = _attempt(derivations, given, renaming, rows_with_norms)
    return first if second.certificate is None else second


def _attempt(
    derivations: tuple[Derivation, Derivation], given: Sequence[Given], renaming: Sequence[str], laws: Any
) -> Attempt:
    proof = _Laws(derivations, given, laws)
    norms = any(f.function == "normalize" for f in proof.functions.sums.values())
    try:
        found = proof.run()
    except ZeroDenominatorError:
        reason = "a denominator is 0 whatever its tensors are: by the laws of functions its terms cancel"
        raise ProofError(reason) from None
    except NoWitnessError:
        return Attempt(None, proof.left_over(), norms)
    except (BudgetError, RecursionError) as error:
        return Attempt(None, f"the laws of functions lead too far: {error}", norms)
    return Attempt(renumbered(found, [proof.equations[text].data["equation"] for text in renaming]), "", norms)


class _Laws(LawfulProof):
    def normalise(self) -> None:
        for name in list(self.functions.sums):
            self.normal(name)
        for side in (self.left, self.right):
            self.tidy(side)
        # The laws of functions need no positions in order, so only the terms of the two sides are split.
        self.order()
        for side in (self.left, self.right):
            self.tidy(side)
        inverses(self)
        for side in (self.left, self.right):
            self.tidy(side)
        cross_multiply(self)

    def ordered(self, total: FlatSum) -> None:
        in_order(self, total)

    def ordered_sums(self) -> list[FlatSum]:
        return [self.left, self.right]

    def run(self) -> dict[str, Any]:
        found = super().run()
        where = [name for name in self.functions.lines.values() if name in self.needed]
        return {**found, "where": where} if where else found

    def pairs(self) -> tuple[list[dict[str, Any]], list[str]]:
        pairs, results = super().pairs()
        # The functions in the results, and in these in turn, have lines of their own.
        waiting, shown = tensors_of([*self.left.terms, *self.right.terms]), set[str]()
        while waiting:
            shown |= waiting
            waiting = (
                tensors_of(t for n in waiting if n in self.functions.sums for t in self.functions.sums[n].terms) - shown
            )
        made = [self.letters.line(f)[0] for name, f in self.functions.sums.items() if name in shown]
        claimed = set(self.functions.texts())
        return pairs, [*results, *(line for line in made if line not in claimed)]

    def left_over(self) -> str:
        """Return the terms that one side alone has, as text."""
        found = []
        for side, terms in zip(("left", "right"), rest(self), strict=True):
            if terms:
                total = FlatSum("y", self.left.slots, "", (), terms[:SHOWN])
                _, names = self.letters.line(total)
                found.append(f"{sum_text(total.terms, names)}{' + ...' * (len(terms) > SHOWN)} on the {side}")
        return "by the laws of functions there is left " + " and ".join(found) if found else ""
