"""Entries of inputs: a constant of 0 and 1 picks them."""

from __future__ import annotations

from dataclasses import replace

import torch

from polyattn.reading.builder import one_hot
from polyattn.reading.sizes import Size
from polyattn.reading.values import ONE, Access, Call, Element, Index, Pick, Sum, Tensor, Term, walk


def with_constants(output: Tensor) -> None:
    """Write picked entries as products with constants, in place."""
    constants: dict[tuple[int, Size], Tensor] = {}

    def picked(access: Access) -> list[Access]:
        extra: list[Access] = []
        slots = []
        for slot in access.slots:
            new: list[Element] = []
            for element in slot:
                if isinstance(element, Pick):
                    index = Index(element.size)
                    extra.append(one_hot(index, element.number))
                    element = index
                new.append(element)
            slots.append(tuple(new))
        found = [replace(access, slots=tuple(slots)), *extra]
        if extra and access.divides:
            indices = tuple(dict.fromkeys(i for i in access.indices))
            body = (Term(ONE, (replace(found[0], divides=False), *extra)),)
            inner = Tensor("definition", access.tensor.hint, tuple(i.size for i in indices), indices, body)
            return [Access(inner, tuple((i,) for i in indices), True)]
        return found

    def shared(access: Access) -> Access:
        tensor = access.tensor
        if tensor.kind != "onehot":
            return access
        key = tensor.number, tensor.sizes[0].root
        if key not in constants:
            data = torch.zeros(tensor.sizes[0].example, dtype=torch.float64)
            data[tensor.number] = 1
            constants[key] = Tensor("parameter", tensor.hint, tensor.sizes, data=data)
        return replace(access, tensor=constants[key])

    def changed(terms: Sum) -> Sum:
        first = [replace(t, factors=tuple(f for a in t.factors for f in picked(a))) for t in terms]
        return tuple(replace(t, factors=tuple(shared(f) for f in t.factors)) for t in first)

    # Twice, since a divisor becomes a definition of its own.
    for _ in range(2):
        for tensor in list(walk(output)):
            body = tensor.body
            tensor.body = replace(body, argument=changed(body.argument)) if isinstance(body, Call) else changed(body)
