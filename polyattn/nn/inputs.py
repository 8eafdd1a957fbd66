"""Inputs of a layer: by position or by name, with or without the batch axis, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError, SpecError
from polyattn.language.resolve import accesses_of
from polyattn.language.sizes import is_name, names_in
from polyattn.language.syntax import IndexSize, Statements
from polyattn.nn.masks import as_numbers
from polyattn.runtime.function import SpecFunction


@dataclass(frozen=True)
class Inputs:
    """The inputs of a specification, and its functions in which some inputs are shared by all samples.

    Attributes:
        spec: the specification, and `text`, its text.
        sizes: the sizes that are given.
        shapes: names of sizes, by the input's name.
        objective: of the plans.
        functions: the callables of functions of the user's own.
        memory_limit: of the plans.
    """

    spec: Spec
    text: str
    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[str, ...]]
    objective: str
    functions: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    memory_limit: int | None = None
    _functions: dict[tuple[str, ...], SpecFunction | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        spec: Spec,
        sizes: Mapping[str, int],
        objective: str,
        functions: Mapping[str, Callable[[Tensor], Tensor]],
        memory_limit: int | None = None,
    ) -> Inputs:
        known, inputs = dict(spec.sizes.solve(sizes)), dict(spec.inputs)
        return cls(spec, str(spec), known, inputs, objective, functions, memory_limit)

    def read(
        self, given: Sequence[Tensor], named: Mapping[str, Tensor], values: Sequence[Tensor]
    ) -> tuple[list[Tensor], tuple[bool, ...]]:
        """Return the inputs in order, masks as numbers, and which of them have the batch axis.

        Raises:
            SizeError: a wrong number of inputs, an unknown name, sizes or batches that disagree, a wrong dtype.
        """
        tensors = self._in_order(given, named)
        batched = self._checked(tensors)
        return self._as_floats(tensors, values), batched

    def _in_order(self, given: Sequence[Tensor], named: Mapping[str, Tensor]) -> list[Tensor]:
        names = list(self.shapes)
        if len(given) > len(names):
            raise SizeError(f"{len(given)} inputs are given, but {self._expected()}")
        found = dict(zip(names, given, strict=False))
        for name, tensor in named.items():
            if name not in self.shapes:
                raise SizeError(f"`{name}` is not an input: {self._expected()}")
            if name in found:
                raise SizeError(f"`{name}` is given twice, by position and by name; {self._expected()}")
            found[name] = tensor
        missing = [name for name in names if name not in found]
        if missing:
            raise SizeError(f"missing: {', '.join(f'`{name}`' for name in missing)}; {self._expected()}")
        for name, tensor in found.items():
            if not isinstance(tensor, Tensor):
                raise SizeError(f"`{name}` must be a tensor, not {type(tensor).__name__}")
        return [found[name] for name in names]

    def _expected(self) -> str:
        listed = ", ".join(map(str, self.spec.statements.inputs))
        return f"this layer takes {listed}, by position or by name, each with a batch axis in front"

    def _checked(self, tensors: Sequence[Tensor]) -> tuple[bool, ...]:
        """Return which inputs have a batch axis; raise SizeError for shapes that contradict each other."""
        known: dict[str, Any] = dict(self.sizes)
        fixed_by: dict[str, str] = {}
        batch: tuple[str, Any] | None = None
        batched = []
        for (name, sizes), tensor in zip(self.shapes.items(), tensors, strict=True):
            shape, rank = tensor.shape, len(sizes)
            lead = len(shape) - rank
            if lead not in (0, 1):
                wanted = ", ".join(sizes)
                raise SizeError(
                    f"`{name}` must have the shape (B{', ' * bool(sizes)}{wanted}) or, shared by all samples, "
                    f"({wanted}), not {tuple(shape)}"
                )
            batched.append(lead == 1)
            if lead and batch is None:
                batch = name, shape[0]
            elif lead and batch is not None and shape[0] != batch[1]:
                raise SizeError(
                    f"`{name}` has a batch of {shape[0]}, but `{batch[0]}` one of {batch[1]}: an input that all "
                    f"samples share comes without its batch axis, as ({', '.join(sizes)})"
                )
            for size, length in zip(sizes, shape[lead:], strict=True):
                if not (size.isdigit() or is_name(size)):
                    continue  # a combination such as 2*N-1 is checked when N is known
                number = int(size) if size.isdigit() else known.setdefault(size, length)
                if number != length:
                    other = f"`{fixed_by[size]}` has {size} = {number}" if size in fixed_by else "the layer was made"
                    other += "" if size in fixed_by else f" for {size} = {number}"
                    raise SizeError(f"`{name}` of shape {tuple(shape)} has {size} = {length}, but {other}")
                if not length:
                    raise SizeError(f"`{name}` is empty along {size}: its shape is {tuple(shape)}")
                if size not in self.sizes:
                    fixed_by.setdefault(size, name)
        if self.spec.sizes.splits and not torch.compiler.is_compiling():
            self.spec.sizes.solve({s: int(n) for s, n in known.items()}, self.spec.sizes.names)
        return tuple(batched)

    def _as_floats(self, tensors: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
        dtype: torch.dtype | None = None
        for name, tensor in zip(self.shapes, tensors, strict=True):
            if tensor.dtype == torch.bool:
                continue
            if not tensor.is_floating_point():
                raise SizeError(
                    f"`{name}` must be of a floating dtype, not {tensor.dtype}; a mask is boolean and keeps entries "
                    f"where it is True: give `{name} != 0` if that is meant"
                )
            if dtype is None:
                dtype, first = tensor.dtype, name
            elif tensor.dtype != dtype and not _autocast(tensor):
                raise SizeError(f"`{name}` is {tensor.dtype}, but `{first}` is {dtype}: give both in one dtype")
        if dtype is None:
            dtype = values[0].dtype if values else torch.get_default_dtype()
        return [
            as_numbers(tensor, name, self.text, dtype) if tensor.dtype == torch.bool else tensor
            for name, tensor in zip(self.shapes, tensors, strict=True)
        ]

    def apply(
        self, function: SpecFunction, tensors: Sequence[Tensor], batched: tuple[bool, ...], values: Sequence[Tensor]
    ) -> Tensor:
        """Return the output of the specification's function for checked inputs."""
        if all(batched):
            return function.apply(*tensors, *values)
        if not any(batched):
            return function.apply(*(t.unsqueeze(0) for t in tensors), *values).squeeze(0)
        shared = tuple(name for name, has in zip(self.shapes, batched, strict=True) if not has)
        of_shared = self._of_shared(shared)
        if of_shared is not None:
            parameters = zip(self.spec.parameters, values, strict=True)
            return of_shared(dict(zip(self.shapes, tensors, strict=True)) | dict(parameters))
        batch = next(t.shape[0] for t, has in zip(tensors, batched, strict=True) if has)
        whole = (t if has else t.expand(batch, *t.shape) for t, has in zip(tensors, batched, strict=True))
        return function.apply(*whole, *values)

    def _of_shared(self, names: tuple[str, ...]) -> SpecFunction | None:
        """Return the function in which these inputs are parameters, so that it treats them once for all samples.

        None while compiling, before an eager call has made it, and where `shared` has none.
        """
        if names not in self._functions:
            if torch.compiler.is_compiling():
                return None
            spec = shared(self.spec, names, self.sizes)
            options: dict[str, Any] = {"memory_limit": self.memory_limit}
            how = (self.sizes, self.objective, self.functions)
            self._functions[names] = None if spec is None else SpecFunction(spec, *how, **options)
        return self._functions[names]


def shared(spec: Spec, names: Sequence[str], sizes: Mapping[str, int]) -> Spec | None:
    """Return the specification with some inputs as parameters, without a batch axis.

    None if a size would be known from these inputs alone (then a plan for each number of it would be kept), or if an
    index cannot be declared: its letter has two sizes in the specification, or its size is not one that has a name.

    >>> print(shared(Spec("x[N,C]; m[N,N]; y[a,c] = m[a,e]*x[e,c]"), ["m"], {}))
    x[N,C]
    where a, e : N
    y[a,c] = m[a,e]*x[e,c]
    """
    have = spec.statements
    rest = tuple(i for i in have.inputs if i.name not in names)
    known = spec.sizes.fixed_by({*sizes, *(s for i in rest for s in i.sizes)})
    if any(s not in known for name in names for size in spec.inputs[name] for s in names_in(size)):
        return None
    declared = {(d.index, d.size) for d in have.index_sizes}
    for number, definition in enumerate(spec.core):
        for access in accesses_of(definition.body):
            if access.tensor in names:
                found = spec.resolved.index_sizes[number]
                declared |= {(index, spec.sizes.name(found[index])) for index in access.indices}
    try:
        ordered = tuple(IndexSize(i, s) for i, s in sorted(declared, key=lambda d: (d[1], d[0])))
        made = Spec(Statements(rest, have.splits, ordered, spec.core, have.functions))
        same = all(made.shape(name) == spec.shape(name) for name in (*spec.inputs, *spec.parameters, spec.output))
    except (SpecError, KeyError):
        return None
    return made if same and made.output == spec.output else None


def _autocast(tensor: Tensor) -> bool:
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
