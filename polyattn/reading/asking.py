"""`prove` and `plan` of equations and of code. Torch is imported where there is code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyattn.errors import ReadingError
from polyattn.language import Specification

if TYPE_CHECKING:
    from polyattn.algebra import Spec
    from polyattn.planning import Plan
    from polyattn.proving import Verdict
    from polyattn.proving.question import Question
    from polyattn.reading.reading import Reading


def prove(
    left: Question | Any,
    right: Question | Any,
    given: str | Sequence[str] = (),
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    effort: int | None = None,
) -> Verdict:
    """Decide whether two equations, or two pieces of code, are the same function of their tensors, at every size.

    Two polynomials are equal at every size exactly if their monomials are, up to renaming of summed indices; functions
    such as softmax count as unknown tensors, one for each argument. "equal" is always proved: it comes with a
    certificate accepted by the independent checker, `proofs/check.py`. "different" always comes with a counterexample;
    all other questions, and proofs too large for the checker, are "undecided".

    Parameters of one name are one tensor on both sides. Those that one side alone has are matched with those that the
    other side alone has, up to renaming: "equal" then holds if they are the same, and `Verdict.renaming` says how.

    Code is read first (`polyattn.read`); the inputs of both sides are matched in their order. Sizes that code fixes are
    letters, so a difference of two pieces of code is confirmed at the example's sizes: without one the answer is
    "undecided".

    Args:
        left, right: specifications, polynomials, texts, modules, functions of tensors, or readings; with the same
            inputs and an output of the same shape. Sizes and tensors of one name are the same on both sides.
        given: equations to assume:
            a definition of a tensor, "wf[d,f] = wq[d,r]*wk[f,r]", with indices of the right side only summed;
            a size, "C = G*M" or "R = K", or the size of an index of the other equations, "r : R";
            a symmetry, "adj[k,l] = adj[l,k]";
            a product equal to fewer factors, "u[i,k]*u[j,k] = I[i,j]", with indices of the left side only summed,
            or "p[i,k] summed over k is 1", with the summed indices named.
        args, kwargs: for code, an example of its arguments, the same for both sides.
        names: for code, as for `polyattn.read`; by default the sizes of the equation on the other side.
        effort: largest number of monomials to evaluate in the search for a counterexample. With less of it, more
            questions are "undecided" and counterexamples are larger; "equal" and "different" stay as certain.

    Returns:
        The verdict; true only for "equal".

    Raises:
        SpecError: a text is wrong.
        ProofError: the question makes no sense (other inputs, other shapes), or a given equation is wrong, about
            unknown tensors, circular, or contradicts another.
        ReadingError: code cannot be read, or `args` is missing.
        BudgetError: the expansion is too large.

    >>> verdict = prove(
    ...     "x[N,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f]*x[e,b]",
    ...     "x[N,C]; g[f,b] = x[e,f]*x[e,b]; y[a,b] = x[a,d]*wq[d,r]*wk[f,r]*g[f,b]; where r : R",
    ...     given="wf[d,f] = wq[d,r]*wk[f,r]",
    ... )
    >>> verdict.status, bool(verdict)
    ('equal', True)
    >>> prove("x[N,C]; y[a,b] = x[a,c]*u[c,b]", "x[N,C]; y[a,b] = x[a,c]*w[c,b]").renaming
    {'u': 'w'}
    >>> import torch
    >>> bool(prove(lambda x: x @ x.mT @ x, lambda x: x @ (x.mT @ x), args=(torch.randn(2, 5, 3),)))
    True
    """
    from polyattn import proving
    from polyattn.proving.search import MAX_WORK

    work = MAX_WORK if effort is None else effort
    if not is_code(left) and not is_code(right):
        return proving.prove(left, right, given, effort=work)
    from polyattn.reading.comparing import prove_code

    return prove_code(left, right, given, args, kwargs, names, work)


def plan(
    spec: Spec | str | Any,
    sizes: Mapping[str, int] | None = None,
    objective: str = "forward",
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    **options: Any,
) -> Plan:
    """Return the cheapest known way to compute a specification, or code, at given sizes.

    Args:
        spec: a specification or its text; or a module, a function of tensors, or a reading of one.
        sizes: numbers for the sizes, with B for the batch; for code, by default the example's.
        objective: "forward", "training" or "as_written"; see `polyattn.lowering.plan` for this and for `options`:
            `batch`, `memory_limit`, `cost`, `device`, `dtype`, `kernels`, `accuracy`.
        args, kwargs, names: for code, as for `polyattn.read`.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown or out of range.
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit; says the smallest that would
            do.
        ReadingError: code cannot be read, or `args` is missing.

    >>> print(plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 10, "C": 4}).macs)
    160
    """
    from polyattn import lowering

    if not is_code(spec):
        return lowering.plan(spec, sizes, objective, **options)  # type: ignore[arg-type]
    found = as_reading(spec, args, kwargs, names)
    return lowering.plan(found.spec, {**found.numbers, **(sizes or {})}, objective, **options)


def is_code(subject: object) -> bool:
    """Return whether this is code or a reading of it: a module, a function of tensors."""
    return not isinstance(subject, Specification | str) and (callable(subject) or is_reading(subject))


def is_reading(subject: object) -> bool:
    return type(subject).__module__ == "polyattn.reading.reading"


def as_reading(
    subject: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, names: str | Mapping[Any, str] | None
) -> Reading:
    """Return a reading as it is, and the reading of code.

    Raises:
        ReadingError: `args` is missing, or the code cannot be read.
    """
    if is_reading(subject):
        return subject
    check_args(subject, args)
    from polyattn.reading.reading import read

    return read(subject, () if args is None else args, kwargs, names)


def check_args(subject: object, args: object) -> None:
    if args is None:
        name = getattr(subject, "__name__", type(subject).__name__)
        raise ReadingError(
            f"`args` is missing: give an example of the arguments of {name}, such as (torch.randn(2, 5, 64),)"
        )
