"""Verdicts as text: the bijection of a proof, or the numbers of a counterexample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from polyattn.errors import PolyattnError
from polyattn.proving.given import reading, with_sums

if TYPE_CHECKING:
    from polyattn.proving.verdict import Verdict

SHOWN_PAIRS = 12
"""The number of monomial pairs shown; the certificate has them all."""


def verdict_text(verdict: Verdict) -> str:
    if verdict.certificate is not None:
        lines = [
            f"{equal_text(verdict)} at every size{where_text(verdict)}: {verdict.reason}",
            *_proof(verdict.certificate),
        ]
    elif verdict.counterexample is not None:
        lines = _difference(verdict.counterexample)
    else:
        lines = ["undecided: " + verdict.reason]
    return "\n".join([*lines, *(line for line in given_lines(verdict.given) if ", read as " in line)])


def equal_text(verdict: Verdict) -> str:
    """Return "equal", or "equal if u = w1, v = w2" for a verdict up to the names of parameters."""
    renamed = ", ".join(f"{old} = {new}" for old, new in verdict.renaming.items())
    return f"equal if {renamed}," if renamed else "equal"


def where_text(verdict: Verdict) -> str:
    """Return ", wherever z is not 0" for a verdict with such conditions."""
    return f", wherever {' and '.join(verdict.where)}" if verdict.where else ""


def given_lines(given: Iterable[str]) -> list[str]:
    """Return a line for each given equation, with its unwritten sums."""
    lines = []
    for text in given:
        try:
            meaning = reading(text)
        except PolyattnError:  # of a stored verdict, which may say anything
            meaning = text
        lines.append(f"  given  {text}" + (f", read as {meaning}" if meaning != text else ""))
    return lines


def _proof(certificate: dict[str, Any]) -> list[str]:
    lines = [f"  where  {line}" for line in certificate["functions"]]
    renaming = [{"equation": equation, "summed": []} for equation in certificate.get("renaming", ())]
    equations = [*certificate["given"], *renaming]
    laws = dict.fromkeys(step["law"] for step in certificate["steps"] if "law" in step)
    for side, result in zip(("left", "right"), certificate["results"], strict=False):
        lines.append(f"  {side:5}  {certificate[side]}")
        used = {step["use"] for step in certificate["steps"] if step.get("in") == side and "use" in step}
        if result != certificate[side]:
            rules = [with_sums(equations[k]["equation"], equations[k]["summed"]) for k in sorted(used)]
            # Without a used equation or law the side changed by gathering only.
            by = ", ".join([*rules, *(["the laws below"] if laws else [])]) or "equal functions and terms"
            lines.append(f"         {result}  by {by}")
    lines += [f"  with   {line}" for line in certificate["results"][2:]]
    lines += [f"  laws   {', '.join(laws)}"] if laws else []
    left, right = map(_terms, certificate["results"][:2])
    for pair in certificate["pairs"][:SHOWN_PAIRS]:
        lines.append(f"  {left[pair['left']]}  =  {right[pair['right']]}")
        moved = [f"{i}→{j}" for i, j in pair["indices"].items()]
        lines.append(f"    indices {', '.join(moved) or 'none'}")
    if len(certificate["pairs"]) > SHOWN_PAIRS:
        lines.append(f"  and {len(certificate['pairs']) - SHOWN_PAIRS} more pairs")
    return lines


def _terms(text: str) -> list[str]:
    """Return the terms of an expanded text."""
    total = text.partition(" = ")[2]
    # A leading minus belongs to the term, so that splitting at " + " keeps it.
    return total.replace(" - ", " + -").split(" + ")


def _difference(found: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{size} = {number}" for size, number in found["sizes"].items())
    entry = ",".join(map(str, found["entry"]))
    lines = [f"different: at {sizes} the output's entry [{entry}] is"]
    lines.append(f"  {_value(found['left'])} on the left, {_value(found['right'])} on the right, with")
    lines += [f"  {tensor} = {value}" for tensor, value in found["tensors"].items()]
    if found["values"] == "enclosed":
        lines.append("  (a decimal is off by less than one unit of its last digit)")
    return lines


def _value(number: int | float | str) -> str:
    # Decimals of enclosed values are strings too, but have no slash.
    exact = isinstance(number, int) or "/" in str(number)
    return str(number) if exact else f"about {number}"
