"""Makes definitions, and moves slices of a result into the parameters that it is computed from."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod

from polyattn.language.functions import KEEPING, kind
from polyattn.reading.sizes import PAIRED, UnsayableError, composite
from polyattn.reading.values import (
    ONE,
    Access,
    Affine,
    Body,
    Call,
    Coefficient,
    Element,
    Index,
    Pick,
    Ranged,
    Slot,
    Sum,
    Tensor,
    Term,
    Value,
    accesses,
    index_of,
    map_access,
    map_sum,
    power_of,
    terms_of,
    with_terms,
)


def define(axes: tuple[tuple[Index, ...], ...], body: Body, hint: str, place: str = "") -> Value:
    """Return the value of a new definition; indices of the axes that its right-hand side lacks are broadcast."""
    within = {i for f in accesses(body) for i in f.indices}
    free = tuple(i for axis in axes for i in axis if i in within)
    tensor = Tensor("definition", hint, tuple(i.size for i in free), free, body, place=place)
    return Value(axes, tensor, tuple((i,) for i in free))


def number(coefficient: Coefficient, axes: tuple[tuple[Index, ...], ...] = ()) -> Value:
    """Return a value that is one number everywhere."""
    body = (Term(coefficient),) if coefficient.number else ()
    return define(axes, body, "number")


def one_hot(index: Index, entry: int) -> Access:
    """Return a factor that is 1 where the index is at an entry, else 0."""
    return Access(Tensor("onehot", f"pick{entry}", (index.size,), number=entry), ((index,),))


def summed(value: Value, axes: tuple[tuple[Index, ...], ...], scale: Coefficient = ONE) -> Term:
    """Return the sum of a value over its indices that `axes` lack."""
    kept = {i for axis in axes for i in axis}
    within = set(value.access.indices)
    for index in value.indices:
        if index not in kept and index not in within:
            scale *= power_of(index.size)
    return Term(scale, (value.access,))


def pushed(value: Value) -> Value:
    """Return a value with its picked entries moved into its operands.

    Raises:
        UnsayableError: a slice of something that cannot be sliced.
    """
    access = push(value.access)
    return Value(value.axes, access.tensor, access.slots, value.where)


def push(access: Access) -> Access:
    tensor = access.tensor
    if all(_pattern(slot) is None for slot in access.slots):
        return access
    if tensor.kind == "condition":
        raise UnsayableError("a place of a mask")
    if tensor.kind == "parameter":
        return _part(access)
    if tensor.kind == "onehot":
        ((element,),) = access.slots if len(access.slots[0]) == 1 else (((None,),),)
        if not isinstance(element, Pick):
            raise UnsayableError("a slice across the parts of a concatenation")
        return replace(
            number(Coefficient(Fraction(int(element.number == tensor.number)))).access, divides=access.divides
        )
    if tensor.kind == "definition":
        return _pushed_definition(access)
    _check_residual(access)
    return access


def _check_residual(access: Access) -> None:
    for slot in access.slots:
        for element in slot:
            if isinstance(element, Ranged) or (isinstance(element, Pick) and not element.size.fixed):
                raise UnsayableError("a slice of part of an axis")


def _pattern(slot: Slot) -> object:
    if all(isinstance(e, Index | Affine) for e in slot):
        return None
    return tuple(_element(e) for e in slot)


def _element(element: Element) -> object:
    if isinstance(element, Pick):
        return "pick", element.number, element.size.values
    if isinstance(element, Ranged):
        return "range", element.start, element.size.values, element.index.size.values
    return "index", element.size.values


def _pushed_definition(access: Access) -> Access:
    tensor = access.tensor
    body = tensor.body
    special = {i for i, slot in zip(tensor.indices, access.slots, strict=True) if _pattern(slot) is not None}
    if isinstance(body, Call) and kind(body.function) == KEEPING and special & set(body.over):
        _check_residual(access)
        return access
    key = tuple(_pattern(slot) for slot in access.slots)
    if key not in tensor.parts:
        mapping: dict[Index, Slot] = {}
        indices: list[Index] = []
        for index, slot in zip(tensor.indices, access.slots, strict=True):
            if index in special:
                mapping[index] = tuple(_fresh(e) for e in slot)
            else:
                mapping[index] = (index.fresh(),)
            indices += [i for e in mapping[index] if (i := index_of(e)) is not None]
        for bound in {i for t in terms_of(body) for i in t.indices} - set(mapping):
            mapping[bound] = (bound.fresh(),)
        new = with_terms(body, lambda terms: _push_sum(map_sum(terms, mapping)))
        if isinstance(new, Call):
            over = tuple(i for o in new.over for i in mapping[o] if isinstance(i, Index))
            new = replace(new, over=over, where=tuple(push(map_access(c, mapping)) for c in new.where))
        present = {i for f in accesses(new) for i in f.indices}
        kept = tuple(i for i in indices if i in present)
        tensor.parts[key] = Tensor(
            "definition",
            _hint(tensor.hint, access),
            tuple(i.size for i in kept),
            kept,
            new,
            place=tensor.place,
            node=tensor.node,
        )
        tensor.parts[key].parts["order"] = [indices.index(i) for i in kept]  # type: ignore[assignment]
    part = tensor.parts[key]
    order: list[int] = part.parts["order"]  # type: ignore[assignment]
    slots: list[Slot] = []
    for index, slot in zip(tensor.indices, access.slots, strict=True):
        if index in special:
            slots += [(i,) for e in slot if (i := index_of(e)) is not None]
        else:
            slots.append(slot)
    return Access(part, tuple(slots[k] for k in order), access.divides)


def _hint(hint: str, access: Access) -> str:
    """Return the name of a part: q, k and v of qkv."""
    picks = [e.number for slot in access.slots for e in slot if isinstance(e, Pick)]
    word = hint.rpartition("_")[2]
    if len(picks) == 1 and word in ("qkv", "kv", "qk", "qv") and picks[0] < len(word):
        return word[picks[0]]
    return hint


def _push_sum(terms: Sum) -> Sum:
    return tuple(replace(t, factors=tuple(push(f) for f in t.factors)) for t in terms)


def _fresh(element: Element) -> Element:
    if isinstance(element, Index):
        return element.fresh()
    return replace(element, index=element.index.fresh()) if isinstance(element, Ranged) else element


def _part(access: Access) -> Access:
    """Return a slice of a parameter as a parameter of its own."""
    if any(isinstance(e, Affine) for slot in access.slots for e in slot):
        raise UnsayableError(PAIRED)
    tensor = access.tensor
    key = tuple(_pattern(slot) for slot in access.slots)
    slots = tuple(tuple(i for e in slot if (i := index_of(e)) is not None) for slot in access.slots)
    kept = tuple(slot for slot in slots if slot)
    if key not in tensor.parts:
        data, shape = tensor.data, []
        for axis, slot in enumerate(access.slots):
            shape.append(prod(i.size.example for e in slot if (i := index_of(e)) is not None))
            lengths = [e.size.example for e in slot]
            whole = [*data.shape[:axis], *lengths, *data.shape[axis + 1 :]]
            data = data.reshape(whole)
            for place, element in enumerate(slot):
                if isinstance(element, Pick):
                    data = data.narrow(axis + place, element.number, 1)
                elif isinstance(element, Ranged):
                    data = data.narrow(axis + place, element.start, element.index.size.example)
            data = data.reshape([*shape, *tensor.data.shape[axis + 1 :]])
        data = data.reshape([n for n, slot in zip(shape, slots, strict=True) if slot])
        sizes = tuple(composite([i.size for i in slot]) for slot in kept)
        hint = "_".join(
            [
                tensor.hint,
                *(
                    str(e.number if isinstance(e, Pick) else getattr(e, "start", 0))
                    for s in access.slots
                    for e in s
                    if not isinstance(e, Index)
                ),
            ]
        )
        part = Tensor("parameter", hint, sizes, data=data, place=tensor.place, node=_label(tensor, access))
        tensor.parts[key] = part
    return Access(tensor.parts[key], kept, access.divides)


def _label(tensor: Tensor, access: Access) -> str:
    """Return the name of a slice in torch, such as `qkv.weight[64:128]`."""
    shown = []
    for slot in access.slots:
        start, length = 0, 1
        for element in slot:
            start = start * element.size.example + (element.number if isinstance(element, Pick) else 0)
            if isinstance(element, Ranged):
                start += element.start
            length = length * element.size.example if isinstance(element, Index) else length
            if isinstance(element, Ranged):
                length *= element.index.size.example
        plain = all(isinstance(e, Index) for e in slot)
        inner = not plain and isinstance(slot[0], Index)
        shown.append(":" if plain else "..." if inner else f"{start}:{start + length}" if length > 1 else str(start))
    return f"{tensor.origin or tensor.node or tensor.hint}[{', '.join(shown)}]"
