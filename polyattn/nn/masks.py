"""Boolean inputs as masks: the numbers that stand for True and False in an equation.

Guarantees: a mask added to the argument of a softmax, or multiplied outside of functions, keeps entries where it is
True, as the masks of `torch.nn.functional.scaled_dot_product_attention` do. Other uses are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.algebra.monomial import FunctionFactor, Monomial
from polyattn.errors import BudgetError, SizeError
from polyattn.lowering.functions import constant_result

ADDED, MULTIPLIED = "added", "multiplied"


def as_numbers(mask: Tensor, name: str, text: str, like: torch.dtype) -> Tensor:
    """Return a boolean input as floats: 0 and minus infinity, or 1 and 0, after its role in the specification `text`.

    Raises:
        SizeError: the equation gives "keep" no meaning for this input.
    """
    if role(text, name) == ADDED:
        zero = torch.zeros((), dtype=like, device=mask.device)
        return torch.where(mask, zero, zero - torch.inf)
    return mask.to(like)


@constant_result
def role(text: str, name: str) -> str:
    """Return whether a mask is added to the arguments of softmaxes, or multiplied outside of functions.

    Raises:
        SizeError: neither, or both.

    >>> role("x[N,C]; m[N,N]; p[a,e] = softmax[e](x[a,c]*x[e,c] + m[a,e]); y[a,c] = p[a,e]*x[e,c]", "m")
    'added'
    """
    found = _roles_of(text, name)
    if found in ({ADDED}, {MULTIPLIED}):
        return min(found)
    raise SizeError(
        f"`{name}` is boolean, but keeping entries where it is True has a meaning only if each term of a softmax's "
        f"argument that has it is '+ {name}[...]' alone, or if it multiplies a product outside of functions: give it "
        f"as numbers"
    )


@cache
def _roles_of(text: str, name: str) -> frozenset[str]:
    try:
        return frozenset(_roles(Spec(text).polynomial().terms, name))
    except BudgetError:
        return frozenset({"too large to expand"})


def _roles(terms: Iterable[Monomial], name: str, function: str = "") -> Iterator[str]:
    """Yield the role of each monomial that contains the tensor."""
    for term in terms:
        own = [f for f in term.factors if not isinstance(f, FunctionFactor) and f.tensor == name]
        if own and function == "softmax":
            yield ADDED if len(term.factors) == 1 and term.coefficient > 0 else "a factor within softmax"
        elif own:
            alone = len(own) == len(term.factors)
            yield MULTIPLIED if not function and not alone else "alone, or within a function"
        for factor in term.factors:
            if isinstance(factor, FunctionFactor):
                yield from _roles(factor.terms, name, factor.function)
