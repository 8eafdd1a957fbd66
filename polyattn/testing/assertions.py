"""Assertions for tests of layers: a failure shows its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyattn.algebra import Spec
    from polyattn.proving import Verdict
    from polyattn.proving.question import Question
    from polyattn.verifying.verification import Verification


def assert_equivalent(
    left: Question | Any,
    right: Question | Any,
    given: str | Sequence[str] = (),
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
) -> Verdict:
    """Fail unless two specifications, or two pieces of code, are proved to be one function at every size.

    Args:
        left, right, given, args, kwargs, names: as for `polyattn.prove`.

    Returns:
        The verdict, with its certificate.

    Raises:
        AssertionError: they differ, or it is undecided; shows both expanded forms, the terms of one side only, and the
            counterexample.
        SpecError, ProofError, ReadingError: as `polyattn.prove`.

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
    from polyattn.reading.asking import is_code

    shown: list[str] = []
    if is_code(left) or is_code(right):
        from polyattn.reading.comparing import ask_code, confirmed, difference_text

        asked, first, second = ask_code(left, right, given, args, kwargs, names)
        verdict = asked.verdict()
        if verdict.status == "different":
            verdict = confirmed(verdict, first, second, given)
        shown = difference_text(first, second, given)
    else:
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
    raise AssertionError("\n".join([*lines, str(verdict), *shown]))


LENGTHS = (5, 3, 7, 2, 4, 6, 9, 8)
"""Odd lengths for the sizes of a specification, in the order of their declaration."""


def assert_computes(
    candidate: Any,
    spec: Spec | str,
    sizes: Mapping[str, int] | None = None,
    *,
    parameters: Mapping[str, str] | None = None,
    derivative: bool = False,
    dtypes: Sequence[Any] = ("float32",),
    seed: int | None = None,
) -> tuple[Verification, ...]:
    """Fail unless a candidate, such as a kernel, computes a specification, exactly.

    Args:
        candidate, spec, parameters, derivative, seed: as for `polyattn.verify`.
        sizes: numbers for the sizes; by default ragged ones, 5, 3, 7, 2, ... in the order of declaration.
        dtypes: dtypes that the candidate sees, one check each.

    Returns:
        A verification for each dtype.

    Raises:
        AssertionError: an entry differs, is undecided, or the candidate cannot run.
        ProofError, SizeError, BudgetError, SpecError: as `polyattn.verify`.

    >>> checks = assert_computes(lambda x, w: x @ w, "x[N,C]; y[a,b] = x[a,c]*w[c,b]")
    >>> assert_computes(lambda x: x @ x.mT / 3, "x[N,C]; y[a,b] = 1/C*x[a,c]*x[b,c]", {"N": 4, "C": 2})
    Traceback (most recent call last):
    AssertionError: no, modular: <lambda> as ...
    """
    from polyattn.algebra import Spec
    from polyattn.verifying import verify

    spec = Spec(spec) if isinstance(spec, str) else spec
    if sizes is None:
        sizes = dict(zip(spec.sizes.atomic, cycle(LENGTHS), strict=False))
    checks = []
    for dtype in dtypes:
        check = verify(candidate, spec, sizes, parameters=parameters, derivative=derivative, dtype=dtype, seed=seed)
        if not check:
            raise AssertionError(str(check))
        checks.append(check)
    return tuple(checks)
