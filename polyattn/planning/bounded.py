"""Exponentials of differences under conditions, bounded where the conditions do not hold.

`exp(c[a] - c[e])*[e <= a]` with a falling c may overflow where e comes behind a, and infinity times 0 is not a number.
There the exponent is multiplied by the condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polyattn.language.conditions import is_condition
from polyattn.planning.steps import Add, Apply, Contract, Identity, Operand

if TYPE_CHECKING:
    from polyattn.planning.builder import Builder


def bounded(operands: Sequence[Operand], builder: Builder) -> list[Operand]:
    """Return the operands of a product with its conditions in the exponents of differences."""
    found = list(operands)
    bounds = [o for o in operands if _is_condition(o, builder)]
    for k, operand in enumerate(operands if bounds else ()):
        node = builder.nodes[operand.value]
        inside = [o for o in bounds if set(o.indices) <= set(operand.indices)]
        diagonal = len(set(operand.indices)) < len(operand.indices)
        if not (inside and isinstance(node, Apply) and node.function == "exp") or diagonal:
            continue
        (argument,) = node.operands
        if not _is_difference(argument.value, builder):
            continue
        outside = dict(zip(node.output, operand.indices, strict=True))
        argument = Operand(argument.value, tuple(outside[i] for i in argument.indices))
        for bound in inside:
            argument = builder.contract((argument, bound), argument.indices)
        found[k] = builder.apply("exp", (), argument, argument.indices)
    return found


def _is_condition(operand: Operand, builder: Builder) -> bool:
    node = builder.nodes[operand.value]
    return isinstance(node, Identity) and is_condition(node.tensor)


def _is_difference(value: int, builder: Builder) -> bool:
    """Return whether a value is a sum with terms of both signs, or a product with such a sum."""
    node = builder.nodes[value]
    if isinstance(node, Add):
        signs = {c.number > 0 for c in node.coefficients}
        return len(signs) > 1 or any(_is_difference(o.value, builder) for o in node.operands)
    return isinstance(node, Contract) and any(_is_difference(o.value, builder) for o in node.operands)
