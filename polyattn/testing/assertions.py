"""Assertions for tests of layers: a failure shows its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyattn.proving import Verdict
    from polyattn.proving.question import Question


def assert_equivalent(left: Question, right: Question, given: str | Sequence[str] = ()) -> Verdict:
    """Fail unless two specifications are proved to be one function at every size.

    Args:
        left, right, given: as for `polyattn.prove`.

    Returns:
        The verdict, with its certificate.

    Raises:
        AssertionError: they differ, or it is undecided; shows both expanded forms, the terms of one side only, and the
            counterexample.
        SpecError, ProofError: as `polyattn.prove`.

    >>> verdict = assert_equivalent("x[N]; y[a] = x[a] + x[a]", "x[N]; y[a] = 2*x[a]")
    >>> assert_equivalent("x[N]; y[a] = N*x[a]", "x[N]; y[a] = x[a]")
    Traceback (most recent call last):
    AssertionError: the two specifications differ
      left, expanded   y[n] = N*x[n]
      right, expanded  y[n] = x[n]
      only left        N*x[n]
      only right       x[n]
    different: at N = 2 the output's entry [0] is
      2 on the left, 1 on the right, with
      x = [1, 0]
    """
    # Imported here: the module is imported by tests that do not prove.
    from polyattn.proving import ask

    asked = ask(left, right, given)
    verdict = asked.verdict()
    if verdict:
        return verdict
    forms, only = asked.forms()
    what = "differ" if verdict.status == "different" else "are not proved equal"
    lines = [f"the two specifications {what}"]
    heads = {"where": "where", "left": "left, expanded", "right": "right, expanded"}
    lines += [f"  {heads[side]:15}  {line}" for side, form in forms.items() for line in form]
    lines += [f"  {f'only {side}':15}  {term}" for side, terms in only.items() for term in terms or ["nothing"]]
    lines += [f"  {'given':15}  {text}" for text in verdict.given]
    raise AssertionError("\n".join([*lines, str(verdict)]))
