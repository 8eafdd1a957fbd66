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
"""Verdicts whose JSON has more characters are named with the command that writes them."""


@dataclass(frozen=True)
class Comparison:
    """What the prover says of a specification and another one.

    Attributes:
        left, right: the names of both, as the text below calls them.
        other: which of them the reader does not have before him.
        status: "equal", "different", "undecided" or "not comparable".
        reason: in a sentence, for the last two.
        text: the proof or the counterexample, as `print(verdict)` shows it; "" where there is none.
        json: what `polyattn check` reads; "" where there is none or it is larger than a page should carry.
        given: the equations that were taken for granted.
    """

    left: str
    right: str
    other: str
    status: str
    reason: str = ""
    text: str = ""
    json: str = ""
    given: tuple[str, ...] = ()


def compared(specs: Mapping[str, Spec], given: Sequence[str] = ()) -> dict[str, list[Comparison]]:
    """The verdicts of each specification against all others, by name; every pair is proved once.

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
    """Whether a specification is equal to another one at every size.

    Args:
        left, right: how they are called.
        given: equations as in `prove`; those about tensors or sizes that neither side has are left out.
    """
    known = {n for s in (spec, other) for n in (*s.inputs, *s.parameters, *s.sizes.names)}
    used = tuple(text for text in given if _subject(text) in known)
    try:
        verdict = prove(spec, other, given=used)
    except (ProofError, BudgetError) as error:
        return Comparison(left, right, right, "not comparable", str(error), given=used)
    text = verdict.to_json(indent=1)
    if len(text) > LARGEST:
        text = ""
    return Comparison(left, right, right, verdict.status, verdict.reason, str(verdict), text, used)


def _subject(equation: str) -> str:
    """The tensor or size that a given equation is about."""
    first = re.search(r"[A-Za-z][A-Za-z0-9_]*", equation)
    return first[0] if first else ""
