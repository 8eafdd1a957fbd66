"""`Program`: an equation read from code as a function of the code's own tensors, on its plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.errors import ReadingError
from polyattn.reading import Reading
from polyattn.runtime.function import SpecFunction

_SLICED = re.compile(r"(?P<name>[\w.]+)\[(?P<slices>[\d:, ]+)\]")

BATCH_AXIS, ONE = "the batch", "1"


@dataclass(frozen=True)
class Weight:
    """A parameter of the equation in terms of the module's.

    Attributes:
        path: the attributes that lead to it.
        slices: the range, or the place, of each axis that is cut; empty for the whole.
        shape: its shape in the equation.
    """

    path: tuple[str, ...]
    slices: tuple[slice | int, ...]
    shape: tuple[int, ...]

    def of(self, module: Any) -> Tensor:
        """Return the tensor of a module, with its gradient."""
        held = module
        for name in self.path:
            held = getattr(held, name)
        if self.slices:
            held = held[self.slices]
        return held.reshape(self.shape)


class Program:
    """An equation as a function of a module's own tensors.

    Args:
        reading: of the code, without cuts.
        examples: the tensors given to the code, in the order of the equation's inputs.
        result: the code's result for them, for its axes and its order in memory.
        wide: the result for channels-last examples; None where none of them has four axes.
        narrow: whether the result has 16 bits under autocast.
        accuracy: which plans; see `polyattn.plan`.

    Raises:
        ReadingError: a parameter is used in a form that is not a slice of the module's, or a constant.
    """

    def __init__(
        self,
        reading: Reading,
        module: nn.Module,
        examples: Sequence[Tensor],
        result: Tensor,
        wide: Tensor | None = None,
        narrow: bool = False,
        accuracy: str = "written",
    ):
        spec = reading.spec
        # Sizes that the inputs have are read from them, so that the planned code holds, and is proved, for others too.
        read = spec.sizes.fixed_by({n for letters in spec.inputs.values() for n in letters if n in spec.sizes.names})
        sizes = {name: number for name, number in reading.fixed.items() if name not in read}
        self.function = SpecFunction(spec, sizes, "training", accuracy=accuracy)
        self.weights = tuple(_weight(name, reading, module) for name in spec.parameters)
        self.axes = tuple(
            _axes(shape, letters, reading.batch.get(name))
            for (name, letters), shape in zip(spec.inputs.items(), (t.shape for t in examples), strict=True)
        )
        batched = [BATCH_AXIS in axes for axes in self.axes]
        if any(batched) and not all(batched):
            raise ReadingError("an input without the batch beside one with it")
        self.batched = any(batched)
        self.fixed = dict(reading.fixed)
        place = reading.batch.get(spec.output)
        if self.batched and place is None:
            raise ReadingError("a result without the batch")
        self.place = place
        self.ones = tuple(k for k, n in enumerate(result.shape) if n == 1 and k != place)
        self.order, self.wide_order = _order(result), None if wide is None else _order(wide)
        self.narrow = narrow

    def fits(self, *tensors: Any) -> bool:
        """Return whether the equation holds for tensors: their ranks, and the sizes that the code fixes."""
        if len(tensors) != len(self.axes):
            return False
        known = dict(self.fixed)
        for tensor, axes in zip(tensors, self.axes, strict=True):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.dim() != len(axes):
                return False
            for length, axis in zip(tensor.shape, axes, strict=True):
                number = int(axis) if axis.isdigit() else known.setdefault(axis, length)
                if number != length or (axis != ONE and axis != BATCH_AXIS and length < 2):
                    return False
        return True

    def __call__(self, module: Any, *tensors: Tensor) -> Tensor:
        """Return the result for a module's parameters and the tensors that the code takes."""
        given = [_flat(t, axes) for t, axes in zip(tensors, self.axes, strict=True)]
        found = self.function.apply(*given, *[w.of(module) for w in self.weights])
        if not self.batched:
            found = found.squeeze(0)
        elif self.place:
            found = found.movedim(0, self.place)
        for k in self.ones:
            found = found.unsqueeze(k)
        if self.narrow and torch.is_autocast_enabled(found.device.type):
            found = found.to(torch.get_autocast_dtype(found.device.type))
        order = self.wide_order if self.wide_order is not None and _is_channels_last(tensors[0]) else self.order
        return found if order is None else _laid(found, order)


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _axes(shape: Sequence[int], letters: Sequence[str], batch: int | None) -> tuple[str, ...]:
    """Return the meaning of each axis of an input: the batch, "1", or the size in the equation."""
    left = iter(letters)
    found = [BATCH_AXIS if k == batch else ONE if n == 1 else next(left) for k, n in enumerate(shape)]
    if any(not (a in (BATCH_AXIS, ONE) or a.isalnum()) for a in found):
        raise ReadingError("an input whose length is a combination of sizes")
    return tuple(found)


def _flat(tensor: Tensor, axes: Sequence[str]) -> Tensor:
    """Return an input as the equation has it: the batch first, without axes of length 1."""
    kept = [k for k, a in enumerate(axes) if a not in (ONE, BATCH_AXIS)]
    if BATCH_AXIS in axes:
        place = axes.index(BATCH_AXIS)
        if place:
            tensor = tensor.movedim(place, 0)
            kept = [k + 1 if k < place else k for k in kept]
        for k in reversed([k for k in range(1, len(axes)) if k not in kept]):
            tensor = tensor.squeeze(k)
        return tensor
    for k in reversed([k for k in range(len(axes)) if k not in kept]):
        tensor = tensor.squeeze(k)
    return tensor.unsqueeze(0)


def _weight(name: str, reading: Reading, module: nn.Module) -> Weight:
    source, data = reading.sources[name], reading.tensors[name]
    match = _SLICED.fullmatch(source)
    held: Mapping[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    path = match["name"] if match else source
    if path not in held:
        raise ReadingError(f"`{name}` is {source}, which is no slice of a parameter")
    slices: list[slice | int] = []
    for part in (match["slices"] if match else "").split(","):
        start, colon, stop = part.strip().partition(":")
        if part.strip():
            slices.append(slice(int(start) if start else None, int(stop) if stop else None) if colon else int(start))
    found = Weight(tuple(path.split(".")), _unsqueezed(tuple(slices), held[path]), tuple(data.shape))
    given = held[path].detach()
    cut = given[found.slices] if found.slices else given
    if cut.numel() != data.numel() or not torch.equal(cut.reshape(data.shape).to(data.dtype), data.to(cut.device)):
        raise ReadingError(f"`{name}` is {source}, which is not a slice of `{path}` by ranges")
    return found


def _unsqueezed(slices: tuple[slice | int, ...], held: Tensor) -> tuple[slice | int, ...]:
    """Return slices with one for each axis of length 1 that the equation leaves out."""
    if not slices or len(slices) == held.dim():
        return slices
    left = iter(slices)
    return tuple(slice(None) if n == 1 else next(left, slice(None)) for n in held.shape)


def _order(result: Tensor) -> tuple[int, ...] | None:
    """Return the axes of a result as they lie in memory, the slowest first; None if there are gaps."""
    axes = sorted(range(result.dim()), key=lambda k: (-result.stride(k), k))
    axes = [k for k in axes if result.shape[k] != 1]
    step = 1
    for k in reversed(axes):
        if result.stride(k) != step:
            return None
        step *= result.shape[k]
    left = iter(axes)
    # Axes of length 1 stay where they are.
    return tuple(k if result.shape[k] == 1 else next(left) for k in range(result.dim()))


def _laid(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    if order == tuple(range(len(order))):
        return tensor.contiguous()
    back = [order.index(k) for k in range(len(order))]
    return tensor.permute(order).contiguous().permute(back)
