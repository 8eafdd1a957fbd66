"""Maps as lists of positions: a layer over x[H,W,C] as one over x[(h w),C], where the other layer has one such axis."""

from __future__ import annotations

from dataclasses import replace

from polyattn.algebra import Spec
from polyattn.language.syntax import Access, Definition, Input, Slot, Split
from polyattn.relating.sides import with_accesses


def flattened(a: Spec, b: Spec) -> Spec | None:
    """Return `a` with all positions of its input and its output as one axis; None if `b` has no such axis.

    Both have one input; the one axis has the name that it has in `b`, and is split into the axes of `a`.
    """
    if len(a.inputs) != 1 or len(b.inputs) != 1 or a.has_offsets:
        return None
    ((name, mine),), ((_, theirs),) = a.inputs.items(), b.inputs.items()
    count = len(mine) - len(theirs)
    whole, axes = theirs[0] if theirs else "", mine[: count + 1]
    plain = count > 0 and whole.isidentifier() and whole not in a.sizes.names and a.output_shape[: count + 1] == axes
    # An axis that occurs twice, or a number, is no part of a split.
    if not plain or len(set(axes)) < len(axes) or len(a.output_shape) - count != len(b.output_shape):
        return None
    if any(axis.isdigit() for axis in axes):
        return None

    def merged(old: Access) -> Access:
        if old.tensor not in (name, a.output):
            return old
        first = Slot(tuple(i for slot in old.slots[: count + 1] for i in slot.indices))
        return Access(old.tensor, (first, *old.slots[count + 1 :]))

    statements = a.statements
    definitions = tuple(Definition(merged(d.target), with_accesses(d.body, merged)) for d in statements.definitions)
    splits = tuple(sorted((*statements.splits, Split(whole, axes)), key=lambda s: s.size))
    inputs = (Input(name, (whole, *mine[count + 1 :])),)
    return Spec(replace(statements, inputs=inputs, splits=splits, definitions=definitions))
