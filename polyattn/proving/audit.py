"""`polyattn check`: a stored verdict checked again, as far as possible without the prover.

A certificate is checked by `proofs/check.py`, a program independent of polyattn; the remaining question, whether its
equations are the expanded forms of the verdict's texts, is checked by expanding these again. A counterexample is put
into both texts, and into the given equations. Nothing of a verdict is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from polyattn.errors import PolyattnError, ProofError
from polyattn.language import value_of
from polyattn.proving.evaluation import Point
from polyattn.proving.independent import refusal
from polyattn.proving.interval import Interval, Number
from polyattn.proving.printing import equal_text, given_lines, where_text
from polyattn.proving.prove import Asked, ask
from polyattn.proving.verdict import Verdict
from polyattn.proving.work import MAX_CONFIRMING, Meter, SpentError

# Limits for a text from anywhere: reading it must not exhaust memory.
MAX_LENGTH = 8_000_000
MAX_SIZE = 10_000


@dataclass(frozen=True)
class Recheck:
    """Result of checking a stored verdict; true if it holds.

    Attributes:
        holds: whether the certificate proves equality, or the counterexample shows a difference.
        reason: the finding, in a sentence.
        verdict: the checked verdict.
    """

    holds: bool
    reason: str
    verdict: Verdict

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        given = "".join(f"\n{line}" for line in given_lines(self.verdict.given))
        texts = f"\n{_indented(self.verdict.left)}\n  and\n{_indented(self.verdict.right)}{given}"
        return f"{'accepted' if self.holds else 'refused'}: {self.reason}{texts}"


def recheck(text: str) -> Recheck:
    """Check a verdict written by `Verdict.to_json`.

    Raises:
        ProofError: the text is not a verdict, or the verdict is undecided, so that it claims nothing.
    """
    if len(text) > MAX_LENGTH:
        raise ProofError(f"the verdict has {len(text):,} characters; the limit is {MAX_LENGTH:,}")
    verdict = Verdict.from_json(text)
    if verdict.certificate is not None:
        fault = _fault_of_certificate(verdict, verdict.certificate)
        return Recheck(
            not fault,
            fault or f"the certificate proves that these are {equal_text(verdict)} at every size{where_text(verdict)}",
            verdict,
        )
    if verdict.counterexample is not None:
        fault = _fault_of_counterexample(verdict, verdict.counterexample)
        return Recheck(not fault, fault or "the counterexample shows that these differ", verdict)
    raise ProofError(f"there is nothing to check: the verdict is undecided, because {verdict.reason}")


# The parts of a certificate that state its claim; its steps may differ from those found now.
CLAIM = ("indices", "shapes", "functions", "given", "renaming", "where", "left", "right")


def _fault_of_certificate(verdict: Verdict, certificate: dict[str, Any]) -> str:
    """Return the reason why the certificate does not prove the verdict; empty if it does."""
    refused = refusal(certificate)
    if refused:
        return refused
    try:
        asked = ask(verdict.left, verdict.right, verdict.given)
        # Without a search: only a proof can confirm an equality.
        again = asked.verdict(effort=0)
    except PolyattnError as error:
        return f"the verdict's texts are no question: {error}"
    expected = again.certificate
    if expected is None:
        return "the certificate is about other texts: these are not found to be equal"
    if verdict.where != again.where:
        return "the verdict has other conditions than its certificate"
    if verdict.renaming != again.renaming:
        return "the verdict says of other parameters that they are the same"
    other = next((name for name in CLAIM if certificate.get(name) != expected.get(name)), None)
    return (
        f"the certificate is about other texts: their {other!r} would be another" if other else _layout(asked, verdict)
    )


def _fault_of_counterexample(verdict: Verdict, found: dict[str, Any]) -> str:
    """Return the reason why the counterexample shows no difference; empty if it does."""
    try:
        asked = ask(verdict.left, verdict.right, verdict.given)
        with Meter(MAX_CONFIRMING).running():
            # The same entry is asked for: another one that differs would not be the stored one.
            again = asked.confirmed(_point(asked, found), found["entry"])
        if again is None:
            return "both sides agree there, or what is given does not hold there"
        other = next((name for name, value in again.items() if not _same(name, found, value)), None)
    except SpentError:
        return f"it takes more than {MAX_CONFIRMING:,} steps to put the counterexample into the texts"
    # A stored value may be of any type, and each misfit is a reason to refuse, not a crash.
    except (PolyattnError, ArithmeticError, LookupError, AttributeError, TypeError, ValueError) as error:
        return f"the counterexample cannot be put into the texts: {error}"
    return f"the counterexample has another {other!r} than what comes out" if other else _layout(asked, verdict)


def _layout(asked: Asked, verdict: Verdict) -> str:
    """Return the reason why a verdict's texts are not the checked ones, such as a comment in them; "" if they are."""
    read = [(side.text, text) for side, text in zip(asked.sides, (verdict.left, verdict.right), strict=True)]
    return "" if all(mine == text for mine, text in read) else "its texts are not as a verdict prints them"


def _same(name: str, found: dict[str, Any], value: Any) -> bool:
    """Return whether a counterexample has the value under a name; decimals only need to be near it."""
    said = found.get(name)
    if said == value or (name == "values" and said == "approximate"):
        return True
    return name in ("left", "right", "tensors") and _near(said, value)


def _near(said: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(said, dict) and said.keys() == value.keys() and all(_near(said[k], value[k]) for k in value)
    if isinstance(value, list):
        return isinstance(said, list) and len(said) == len(value) and all(map(_near, said, value))
    difference = _number(said) - _number(value)
    return difference.low <= 0 <= difference.high if isinstance(difference, Interval) else difference == 0


def _number(said: float | str) -> Number:
    """Return an exact number, or a decimal with its uncertainty; a float has nine digits."""
    if isinstance(said, int) or (isinstance(said, str) and "/" in said):
        return Fraction(said)
    return Interval.read(said if isinstance(said, str) else f"{said:.8E}")


def _point(asked: Asked, found: dict[str, Any]) -> Point:
    """Return sizes and tensors, with one axis for each atomic slot; defined tensors follow from their definitions."""
    # `type`, not `isinstance`: true is an int in Python, but not a size.
    sizes = {name: number for name, number in found["sizes"].items() if type(number) is int and 0 < number < MAX_SIZE}
    if len(sizes) < len(found["sizes"]):
        raise ProofError(f"sizes are whole numbers from 1 to below {MAX_SIZE}")
    tensors, free = {}, asked.free_shapes()
    for name, value in found["tensors"].items():
        array = np.array(value, dtype=object)
        if array.shape != tuple(value_of(slot, sizes) for slot in asked.context.shapes[name]):
            raise ProofError(f"'{name}' has shape {array.shape} there")
        # Defined tensors are not read: they are computed again and then compared.
        if name in free:
            numbers = [Fraction(entry) for entry in array.ravel()]
            shape = [value_of((atom,), sizes) for atom in free[name]]
            tensors[name] = np.array(numbers, dtype=object).reshape(shape)
    return Point(sizes, tensors)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
