"""Verdicts between the specifications of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, ProofError
from polyattn.proving import prove

LARGEST = 300_000
"""Characters of a verdict's JSON above which the page names the command that writes it instead."""


@dataclass(frozen=True)
class Comparison:
    """The prover's verdict on a specification and another one.

    Attributes:
        left, right: the names of both, as in the text below.
        other: the one of them outside the section at hand.
        status: "equal", "different", "undecided" or "not comparable".
        names: "if u = w1, v = w2" where the two are equal up to these names of parameters, else "".
        reason: a sentence, for the last two.
        text: the proof or the counterexample, as `print(verdict)` shows it; "" without one.
        json: input of `polyattn check`; "" without a certificate or above the limit of a page.
        given: the equations taken for granted.
    """

    left: str
    right: str
    other: str
    status: str
    reason: str = ""
    text: str = ""
    json: str = ""
    given: tuple[str, ...] = ()
    names: str = ""


def compared(specs: Mapping[str, Spec], given: Sequence[str] = ()) -> dict[str, list[Comparison]]:
    """Prove each specification against all others, by name; every pair is proved once.

    Args:
        given: as in `compare`.
    """
    found: dict[str, list[Comparison]] = {name: [] for name in specs}
    for (a, left), (b, right) in combinations(specs.items(), 2):
        one = compare(a, left, b, right, given)
        found[a].append(one)
        found[b].append(replace(one, other=a))
    return found


def compare(left: str, spec: Spec, right: str, other: Spec, given: Sequence[str] = ()) -> Comparison:
    """Prove or refute that two specifications are equal at every size.

    Args:
        left, right: their names.
        given: equations as in `prove`; those about tensors or sizes unknown to both sides are ignored.
    """
    # `prove` refuses equations about unknown names, and a page has one list for all its pairs.
    known = {n for s in (spec, other) for n in (*s.inputs, *s.parameters, *s.sizes.names)}
    used = tuple(text for text in given if _subject(text) in known)
    try:
        verdict = prove(spec, other, given=used)
    except (ProofError, BudgetError) as error:
        return Comparison(left, right, right, "not comparable", str(error), given=used)
    text = verdict.to_json(indent=1)
    if len(text) > LARGEST:
        text = ""
    names = ", ".join(f"{old} = {new}" for old, new in verdict.renaming.items())
    names = f"if {names}" if names else ""
    return Comparison(left, right, right, verdict.status, verdict.reason, str(verdict), text, used, names)


def _subject(equation: str) -> str:
    """Return the tensor or size that a given equation is about."""
    first = re.search(r"[A-Za-z][A-Za-z0-9_]*", equation)
    return first[0] if first else ""
