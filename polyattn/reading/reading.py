"""`read`: a module or a function of tensors to its equation."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from polyattn.algebra import Spec
from polyattn.errors import ReadingError, SpecError
from polyattn.reading.batch import batch_axis, mixes, without_batch
from polyattn.reading.check import Layout, agrees
from polyattn.reading.export import Exported, export
from polyattn.reading.naming import Names, all_sizes, name_sizes, parse_names
from polyattn.reading.reader import Cut, Found, Reader
from polyattn.reading.render import Naming, Writer, sizes_in, tensor_names
from polyattn.reading.residual import with_constants
from polyattn.reading.simplify import simplified
from polyattn.reading.sizes import PAIRED, Size, UnsayableError, unify
from polyattn.reading.values import ONE, Tensor, Term, Value, walk


@dataclass(frozen=True)
class Reading:
    """An equation read from code.

    Attributes:
        spec: the equation, with one input for each argument and for each cut.
        sizes: the number of each size of the equation at the example.
        parameters: for each parameter of the equation, its qualified name in the module; for a constant, or a slice of
            a parameter, the tensor. Axes of length 1 are left out.
        cuts: the results that became inputs.
        fixed: the sizes that the code fixes, with their numbers: letters in the equation, but not free.
        way: "torch.export", or "make_fx" where that could not trace the code.
        batch: the axis of each input, and of the output, that is the batch; absent where there is none.
    """

    spec: Spec
    sizes: Mapping[str, int]
    parameters: Mapping[str, Any]
    cuts: tuple[Cut, ...] = ()
    fixed: Mapping[str, int] = field(default_factory=dict)
    way: str = "torch.export"
    batch: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    samples: int = 1

    @property
    def numbers(self) -> dict[str, int]:
        """Return the sizes of the example, with B for the batch where there is one."""
        return {**self.sizes, "B": self.samples}

    @property
    def is_complete(self) -> bool:
        """Return whether the equation has no cuts."""
        return not self.cuts

    def __str__(self) -> str:
        lines = [str(self.spec), ""]
        free = [f"{n}={v}" for n, v in self.sizes.items() if n not in self.fixed]
        if free:
            lines.append(f"sizes   {' '.join(free)} at the example, any other as well")
        if self.fixed:
            lines.append(f"fixed   {' '.join(f'{n}={v}' for n, v in self.fixed.items())} by the code")
        for name, source in self.sources.items():
            if source != name:
                lines.append(f"{name:7} is {source}")
        for cut in self.cuts:
            at = f" ({cut.place})" if cut.place else ""
            lines.append(f"cut     {cut.name} is the result of {cut.operation}{at}: {cut.reason}")
        if not self.cuts:
            lines.append("complete: no operation was cut")
        if self.way != "torch.export":
            lines.append(f"traced by {self.way}, since torch.export could not")
        return "\n".join(lines)


def read(
    module: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    output: int | None = None,
) -> Reading:
    """Return the equation of a module, or of a function of tensors.

    The code is traced with symbolic sizes by `torch.export` (or `make_fx`) and followed operation by operation. A
    result without a meaning in the language becomes an input, named after its operation: a cut. The equation is
    evaluated on the example and compared with the module before it is returned. The module is left as it was.

    Args:
        module: a module in evaluation mode, or a function of tensors.
        args, kwargs: an example of its arguments, as `torch.export` takes them; sizes of two or more are symbolic.
        names: letters for the axes of the first input, such as "B C H W", with B for the batch; or a dictionary with
            such a text for each input by its name, and a letter for each number that the code fixes:
            {"x": "B N C", 8: "H"}. By default B and N, C or C, H, W.
        output: which of several results to read.

    Raises:
        ReadingError: torch cannot trace the code; random operations, batch statistics, mutated inputs, complex or
            quantised tensors; or `names` or `output` do not fit.

    >>> import torch
    >>> print(read(torch.nn.Linear(4, 3).eval(), (torch.randn(2, 5, 4),)).spec)
    input[N,C]
    where m : 3
    y[a,m] = input[a,c]*weight[m,c] + bias[m]
    """
    return read_as(module, args, kwargs, parse_names(names), output)


def read_as(
    module: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    names: Names,
    output: int | None = None,
    labels: Sequence[str] = (),
    static: Sequence[Sequence[int]] = (),
) -> Reading:
    """Return `read`'s answer, with other names for the inputs.

    Args:
        labels: names for the inputs, in their order.
        static: for each input, the axes whose lengths stay numbers.
    """
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    exported, found = _traced(module, args, dict(kwargs or {}), names, labels, static)
    reading: Reading | None = None
    try:
        reading = _assembled(exported, found, _output(found, output), names, output or 0)
    except ReadingError as error:
        if not isinstance(error.__cause__, SpecError):
            raise
    if reading is not None and all(cut.reason != PAIRED for cut in reading.cuts):
        return reading
    # Offsets and conditions stand in the way of a part of the text: without them fewer results may be cut.
    found = Reader(exported, wide=False).run()
    plain = _assembled(exported, found, _output(found, output), names, output or 0)
    return plain if reading is None or len(plain.cuts) < len(reading.cuts) else reading


def _traced(
    module: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    known: Names,
    labels: Sequence[str],
    static: Sequence[Sequence[int]],
) -> tuple[Exported, Found]:
    wide = _widened(args, kwargs, known)
    if wide is not None:
        # A batch of one would be read as a number: two of them show whether the code mixes them.
        try:
            exported = _renamed(export(module, *wide, static), module, args, kwargs, labels)
            return exported, Reader(exported).run()
        except ReadingError:
            pass
    exported = _renamed(export(module, args, kwargs, static), module, args, kwargs, labels)
    return exported, Reader(exported).run()


def _widened(
    args: tuple[Any, ...], kwargs: dict[str, Any], names: Names
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    if not tensors or tensors[0].dim() < 3 or tensors[0].shape[0] != 1 or not names.first_is_batch:
        return None

    def wide(a: Any) -> Any:
        return torch.cat([a, a]) if isinstance(a, torch.Tensor) and a.dim() > 1 and a.shape[0] == 1 else a

    return tuple(map(wide, args)), {k: wide(v) for k, v in kwargs.items()}


def _renamed(
    exported: Exported, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[str]
) -> Exported:
    """Name the inputs after the code's own arguments, or as given."""
    if len(given) == len(exported.inputs):
        return replace(exported, inputs=dict(zip(given, exported.inputs.values(), strict=True)))
    function = module.forward if isinstance(module, torch.nn.Module) else module
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return exported
    labels: list[str] = []
    for name, value in bound.arguments.items():
        leaves = pytree.tree_leaves(value)
        tensors = [v for v in leaves if isinstance(v, torch.Tensor)]
        labels += [name if len(tensors) == 1 else f"{name}{k}" for k in range(len(tensors))]
    if len(labels) != len(exported.inputs):
        return exported
    return replace(exported, inputs=dict(zip(labels, exported.inputs.values(), strict=True)))


def _output(found: Found, output: int | None) -> Value:
    if output is None and len(found.outputs) > 1:
        raise ReadingError(
            f"the code returns {len(found.outputs)} results: give `output`, 0 to {len(found.outputs) - 1}"
        )
    place = output or 0
    if not isinstance(place, int) or not 0 <= place < len(found.outputs):
        raise ReadingError(f"`output` is {output!r}; the code returns {len(found.outputs)} results, counted from 0")
    value = found.outputs[place]
    if value is None:
        raise ReadingError("the result is not a tensor that the equation could give: choose another `output`")
    return value


def _assembled(exported: Exported, found: Found, value: Value, names: Names, output: int) -> Reading:
    result = Tensor("definition", "y", (), value.indices, (Term(ONE, (value.access,)),))
    result.sizes = tuple(i.size for i in value.indices)
    simplified(result)
    inputs = {name: tensor for name, (tensor, _) in found.inputs.items()}
    batch = _batch(found, value, result, names)
    layout = {name: None if batch is None else batch_axis(v, batch) for name, (_, v) in found.inputs.items()}
    axis = None if batch is None else batch_axis(value, batch)
    axes = tuple(tuple(i for i in a if batch is None or i.size.root is not batch.root) for a in value.axes)
    cut_values = {t: tuple(s.root for s in t.sizes) for t, *_ in found.cuts}
    if batch is not None:
        dropped = {t: [k for k, s in enumerate(sizes) if s is batch.root] for t, sizes in cut_values.items()}
        without_batch(result, batch)
    else:
        dropped = {}
    with_constants(result)
    _join_symbolic(result)
    order = list(walk(result))
    used = [t for t in order if t.kind == "input"]
    given = list(inputs.values())
    cuts = [c for c in found.cuts if c[0] in used]
    tensors = [*given, *(c[0] for c in cuts), *(t for t in order if t.kind == "parameter")]
    defined = [t for t in order if t.kind == "definition"]
    naming = Naming({}, None)
    shapes = {name: v for name, (_, v) in found.inputs.items()}
    name_sizes(naming, names, shapes, batch, [*tensors, *defined], axes)
    naming.tensors = tensor_names([*tensors, *(d for d in defined if d is not result)], ["y"])
    naming.tensors[result] = "y"
    spec = _text(naming, [*given, *(c[0] for c in cuts)], defined, result, axes)
    reading = _reading(spec, naming, exported, found, cuts, tensors, layout, axis)
    reason = agrees(exported, reading, Layout(cuts, dropped, output))
    if reason:
        raise ReadingError(
            f"internal: the equation read does not agree with the code ({reason}); please report it:\n{spec}"
        )
    return reading


def _join_symbolic(result: Tensor) -> None:
    """Make symbolic sizes that are equal at every assignment of lengths one, such as an expanded axis and N."""
    by_values: dict[Any, Size] = {}
    for size in all_sizes(sizes_in(walk(result))):
        if size.fixed:
            continue
        have = by_values.setdefault(size.values, size)
        if have.root is not size.root:
            with suppress(UnsayableError):
                unify(have, size)


def _batch(found: Found, value: Value, result: Tensor, names: Names) -> Size | None:
    """Return the size of the batch axis, if there is one and the code keeps its entries apart."""
    first = next(iter(found.inputs.values()))[1]
    place = names.batch_axis(next(iter(found.inputs)), len(first.axes))
    if place is None or place >= len(first.axes) or len(first.axes[place]) != 1:
        return None
    size = first.axes[place][0].size
    if not any(a is size.root for t in walk(result) for a in (s.root for s in t.sizes)):
        return None
    reason = mixes(result, value.axes, size)
    if reason and names.marked:
        raise ReadingError(f"`names` marks axis {place} as the batch B, but {reason}; give it another letter")
    return None if reason else size.root


def _text(naming: Naming, inputs: Sequence[Tensor], defined: Sequence[Tensor], result: Tensor, axes: Any) -> Spec:
    head = []
    for tensor in inputs:
        head.append(f"{naming.tensors[tensor]}[{','.join(naming.name(s) for s in tensor.sizes)}]")
    writer = Writer(naming)
    # The output first, so that its indices get the first letters of their sizes.
    last = writer.statement(result, axes)
    body = [writer.statement(t) for t in defined if t is not result]
    splits = list(_splits(naming, [*inputs, *defined]))
    declared = {name: naming.name(size) for name, size in writer.declared.items()}

    def text(letters: Mapping[str, str]) -> str:
        by_size: dict[str, list[str]] = {}
        for name, size in {**letters, **writer.ranges}.items():
            by_size.setdefault(size, []).append(name)
        where = [f"where {', '.join(names)} : {size}" for size, names in by_size.items()]
        return "\n".join([*head, *splits, *where, *body, last])

    try:
        spec = Spec(text(declared))
    except SpecError as error:
        raise ReadingError(f"internal: the equation read is not a specification, please report it: {error}") from error
    # Letters whose size follows from the text are not declared.
    for name in list(declared):
        fewer = {n: s for n, s in declared.items() if n != name}
        try:
            shorter = Spec(text(fewer))
        except SpecError:
            continue
        if shorter.resolved.shapes == spec.resolved.shapes:
            declared, spec = fewer, shorter
    return spec


def _splits(naming: Naming, tensors: Sequence[Tensor]) -> Iterator[str]:
    for size, name in naming.sizes.items():
        if size.parts:
            yield f"where {name} = {'*'.join(_part_names(naming, size))}"


def _part_names(naming: Naming, size: Size) -> list[str]:
    found: list[str] = []
    for part in size.root.parts:
        found += [naming.name(part)] if naming.whole(part) else _part_names(naming, part)
    return found


def _reading(
    spec: Spec,
    naming: Naming,
    exported: Exported,
    found: Found,
    cuts: Sequence[Any],
    tensors: Sequence[Tensor],
    layout: Mapping[str, int | None],
    axis: int | None,
) -> Reading:
    sizes = {name: size.example for size, name in naming.sizes.items() if name in spec.sizes.names}
    fixed = {name: size.example for size, name in naming.sizes.items() if size.fixed and name in sizes}
    parameters: dict[str, Any] = {}
    sources: dict[str, str] = {}
    held: dict[str, torch.Tensor] = {}
    for tensor in tensors:
        name = naming.tensors[tensor]
        if tensor.kind != "parameter" or name not in spec.parameters:
            continue
        parameters[name] = tensor.origin or tensor.data
        sources[name] = tensor.origin or (tensor.node if "[" in tensor.node else "a constant")
        held[name] = tensor.data
    named = tuple(Cut(op, place, naming.tensors[t], reason) for t, _, _, op, place, reason in cuts)
    batch = {naming.tensors[t]: layout[n] for n, (t, _) in found.inputs.items() if layout[n] is not None}
    if axis is not None:
        batch[spec.output] = axis
    samples = next((t.shape[layout[n] or 0] for n, (_, t) in exported.inputs.items() if layout[n] is not None), 1)
    return Reading(spec, sizes, parameters, named, fixed, exported.way, batch, sources, held, samples)  # type: ignore[arg-type]
