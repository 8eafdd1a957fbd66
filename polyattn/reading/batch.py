"""The batch axis: an index that every definition only carries along is left out of the equation."""

from __future__ import annotations

from dataclasses import replace

from polyattn.reading.sizes import Size, atoms
from polyattn.reading.values import Call, Index, Tensor, Value, accesses, indices_of, terms_of, walk


def mixes(output: Tensor, axes: tuple[tuple[Index, ...], ...], batch: Size) -> str:
    """Return how the definitions use the batch other than entry by entry, or ""."""
    batch = batch.root
    if batch.parts:
        return "its length is split"

    def on(index: Index) -> bool:
        return index.size.root is batch

    def inside(size: Size) -> bool:
        return any(a is batch for a in atoms(size))

    for tensor in walk(output):
        own = [i for i in tensor.indices if on(i)]
        if len(own) > 1 or any(inside(i.size) and not on(i) for i in tensor.indices):
            return "two axes have its length"
        if tensor.kind in ("parameter", "onehot") and any(inside(s) for s in tensor.sizes):
            return "a parameter has its length"
        body = tensor.body
        if isinstance(body, Call) and any(on(i) for i in body.over):
            return f"{body.function} runs over it"
        for term in terms_of(body):
            if any(isinstance(b, Size) and inside(b) for b, _ in term.coefficient.powers):
                return "a number depends on its length"
            for index in term.indices:
                if (on(index) and index not in own) or (inside(index.size) and not on(index)):
                    return "its entries are mixed"
        for access in accesses(body):
            for slot, size in zip(access.slots, access.tensor.sizes, strict=True):
                batched = size.root is batch
                plain = len(slot) == 1 and isinstance(slot[0], Index) and on(slot[0])
                touched = any(on(i) for e in slot for i in indices_of(e))
                if (batched or touched) and not (batched and plain):
                    return "its entries are mixed"
    left = [axis for axis in axes if any(on(i) for i in axis)]
    if len(left) > 1 or any(len(axis) != 1 for axis in left):
        return "an axis of the output is the product of it and another"
    return ""


def batch_axis(value: Value, batch: Size) -> int | None:
    """Return which axis of a value is the batch's."""
    for place, axis in enumerate(value.axes):
        if len(axis) == 1 and axis[0].size.root is batch.root:
            return place
    return None


def without_batch(output: Tensor, batch: Size) -> None:
    """Leave the batch's index out of every definition, in place."""
    for tensor in walk(output):
        keep = [k for k, s in enumerate(tensor.sizes) if s.root is not batch.root]
        if len(keep) == len(tensor.sizes):
            continue
        tensor.parts.clear()
        tensor.dropped = [k for k in range(len(tensor.sizes)) if k not in keep]
    # Accesses first, since they are cut by the tensors' old slots.
    for tensor in walk(output):
        body = tensor.body
        changed = tuple(
            replace(
                t,
                factors=tuple(
                    replace(f, slots=tuple(s for k, s in enumerate(f.slots) if k not in f.tensor.dropped))
                    for f in t.factors
                ),
            )
            for t in terms_of(body)
        )
        tensor.body = replace(body, argument=changed) if isinstance(body, Call) else changed
    for tensor in walk(output):
        if tensor.dropped:
            tensor.sizes = tuple(s for k, s in enumerate(tensor.sizes) if k not in tensor.dropped)
            tensor.indices = tuple(i for k, i in enumerate(tensor.indices) if k not in tensor.dropped)
            tensor.dropped = []
