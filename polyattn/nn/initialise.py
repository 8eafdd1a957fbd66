"""Fan-in of a parameter: the number of terms that each of its entries is summed with."""

from __future__ import annotations

from collections.abc import Mapping

from polyattn.algebra import Spec
from polyattn.language import value_of
from polyattn.language.syntax import Access, Bracket, Call, Sum


def fan_in(spec: Spec, parameter: str, sizes: Mapping[str, int]) -> int | None:
    """Return the product of the sizes of the indices that a parameter shares with its neighbour in the text.

    The neighbour is chosen at the parameter's first use: the factor before it in its product with most shared indices,
    the nearest of these, or else the nearest one behind it. None if the parameter is alone in its term.
    """
    for number, definition in enumerate(spec.core):
        # A function such as softmax wraps a sum; the parameter is initialised by the sum inside.
        total = definition.body.argument if isinstance(definition.body, Call) else definition.body
        found = _neighbour(total, parameter)
        if found is not None:
            access, neighbour = found
            if neighbour is None:
                return None
            letters = spec.resolved.index_sizes[number]
            shared = [i for i in dict.fromkeys(access.indices) if i in neighbour]
            return value_of((a for i in shared for a in letters[i]), sizes)
    raise AssertionError(f"'{parameter}' is no parameter of the specification")


def _neighbour(total: Sum, parameter: str) -> tuple[Access, frozenset[str] | None] | None:
    """Return the parameter's first access and the indices of its neighbour."""
    for term in total.terms:
        tensors = [f for f in term.factors if isinstance(f, Bracket) or (isinstance(f, Access) and f.slots)]
        for position, factor in enumerate(tensors):
            if isinstance(factor, Bracket):
                found = _neighbour(factor.body, parameter)
                if found is not None:
                    return found
            # Order in the text matters: in x*w, the neighbour of w is the tensor before it.
            elif factor.tensor == parameter:
                mine = set(factor.indices)
                before = [_indices(t) for t in reversed(tensors[:position])]
                behind = [_indices(t) for t in tensors[position + 1 :]]
                most = max(before, key=lambda o: len(o & mine), default=frozenset())  # the first, so the nearest
                sharing = (o for o in (most, *behind) if o & mine)
                return factor, next(sharing, frozenset()) if before or behind else None
        for factor in term.factors:
            if isinstance(factor, Access) and not factor.slots and factor.tensor == parameter:
                return factor, None
    return None


def _indices(factor: Access | Bracket) -> frozenset[str]:
    if isinstance(factor, Access):
        return frozenset(factor.indices)
    inner = (f for term in factor.body.terms for f in term.factors if isinstance(f, Access | Bracket))
    return frozenset(i for f in inner for i in _indices(f))
