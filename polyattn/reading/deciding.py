"""`prove` of equations and of code. Torch is imported where there is code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polyattn import proving
from polyattn.proving import Verdict
from polyattn.proving.question import Question
from polyattn.proving.search import MAX_WORK
from polyattn.reading.asking import is_code


def prove(
    left: Question | Any,
    right: Question | Any,
    given: str | Sequence[str] = (),
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    effort: int = MAX_WORK,
) -> Verdict:
    """Decide whether two equations, or two pieces of code, are the same function of their tensors, at every size.

    Two polynomials are equal at every size exactly if their monomials are, up to renaming of summed indices; functions
    are compared by their laws, and `Verdict.where` says what these need. "equal" is always proved: it comes with a
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
    if not is_code(left) and not is_code(right):
        return proving.prove(left, right, given, effort=effort)
    from polyattn.reading.comparing import prove_code

    return prove_code(left, right, given, args, kwargs, names, effort)
