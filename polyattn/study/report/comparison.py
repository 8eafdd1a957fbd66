"""Verdicts between the specifications of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, ProofError
from polyattn.proving import prove

LARGEST = 300_000
"""Verdicts whose JSON has more characters are named with the command that writes them."""


@dataclass(frozen=True)
class Comparison:
    """What the prover says of a specification and another one.

    Attributes:
        other: the other one's name.
        status: "equal", "different", "undecided" or "not comparable".
        reason: in a sentence, for the last two.
        text: the proof or the counterexample, as `print(verdict)` shows it; "" where there is none.
        json: what `polyattn check` reads; "" where there is none or it is larger than a page should carry.
        given: the equations that were taken for granted.
    """

    other: str
    status: str
    reason: str = ""
    text: str = ""
    json: str = ""
    given: tuple[str, ...] = ()


def compare(spec: Spec, name: str, other: Spec, given: Sequence[str] = ()) -> Comparison:
    """Whether `spec` is equal to `other`, which is called `name`, at every size.

    Args:
        given: equations as in `prove`; those about tensors or sizes that neither side has are left out.
    """
    known = {n for s in (spec, other) for n in (*s.inputs, *s.parameters, *s.sizes.names)}
    used = tuple(text for text in given if _subject(text) in known)
    try:
        verdict = prove(spec, other, given=used)
    except (ProofError, BudgetError) as error:
        return Comparison(name, "not comparable", str(error), given=used)
    text = verdict.to_json(indent=1)
    if len(text) > LARGEST:
        text = ""
    return Comparison(name, verdict.status, verdict.reason, str(verdict), text, used)


def _subject(equation: str) -> str:
    """The tensor or size that a given equation is about."""
    first = re.search(r"[A-Za-z][A-Za-z0-9_]*", equation)
    return first[0] if first else ""
