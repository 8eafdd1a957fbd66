"""Layers that run position by position: states, steps, and sequences in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.lowering.shapes import NARROW
from polyattn.lowering.stepping import lower_step
from polyattn.planning.decoding import DecodingPlan, decoding_plan

State = dict[str, Tensor]
"""The states of a layer by name, each (B, *channels)."""


Traced = Callable[[Sequence[Tensor], Sequence[Tensor], Mapping[str, Tensor]], tuple[Tensor, State]]
"""A step of inputs, parameters and a state."""


@lru_cache(maxsize=128)
def step_plan(spec: Spec, sizes: tuple[tuple[str, int], ...], order: str | None = None) -> DecodingPlan:
    return decoding_plan(spec, dict(sizes), order)


class Steps:
    """The steps of a specification at given sizes."""

    def __init__(self, spec: Spec, sizes: Mapping[str, int], order: str | None = None):
        self.spec = spec
        self.plan = step_plan(spec, tuple(sorted(sizes.items())), order)
        self.size, self.known = self.plan.order, dict(self.plan.graph.known)
        self.axes = self._axes()
        """The slot of the ordered size in each input and in the output; None for an input without one."""

    def _axes(self) -> dict[str, int | None]:
        return {name: self._axis(name) for name in (*self.spec.inputs, self.spec.output)}

    def _axis(self, tensor: str) -> int | None:
        slots = [k for k, atoms in enumerate(self.spec.shape(tensor)) if self.size in atoms]
        if slots and self.spec.shape(tensor)[slots[0]][0] != self.size:
            raise SizeError(
                f"'{tensor}' has {self.size} as an inner part of a slot: steps need it as the outer part, or alone"
            )
        return slots[0] if slots else None

    def initial(self, batch: int, dtype: torch.dtype, device: Any) -> State:
        dtype = torch.float32 if dtype in NARROW else dtype
        return {n: torch.zeros(batch, *shape, dtype=dtype, device=device) for n, shape in self.plan.state.items()}

    def check_state(self, state: Mapping[str, Tensor], batch: int) -> None:
        """Check a state's names and shapes against the layer and the batch of the inputs.

        Raises:
            SizeError: the state is another layer's, or of another batch.
        """
        wanted = {name: (batch, *shape) for name, shape in self.plan.state.items()}
        if not isinstance(state, Mapping) or set(state) != set(wanted):
            have = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
            raise SizeError(f"`state` has {have or 'nothing'}, but this layer's is {', '.join(wanted)}")
        for name, shape in wanted.items():
            if tuple(state[name].shape) != shape:
                raise SizeError(
                    f"`state[{name!r}]` has shape {tuple(state[name].shape)}, but this step needs {shape}: "
                    f"a state belongs to one batch and one layer"
                )

    def step(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return one position's output and the states after it, for inputs (B, *axes) without the ordered axis."""
        self.check_state(state, self.check_inputs(inputs))
        return self._unchecked(inputs, parameters, state)

    @cached_property
    def _unchecked(self) -> Traced:
        return self.traced_step(0)

    def traced_step(self, places: int) -> Traced:
        """Return the step without checks, for a compiler too: shapes and the lowered graph are constants.

        Args:
            places: those of a cache.
        """
        atoms = [self.atoms(name) for name in self.spec.inputs]
        lengths = [self.lengths(name) for name in self.spec.parameters]
        names, shape, graph = tuple(self.plan.state), self.shape(self.spec.output), lower_step(self.plan)

        def step(
            inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
        ) -> tuple[Tensor, State]:
            batch, dtype = inputs[0].shape[0], inputs[0].dtype
            # 16-bit numbers would lose a long sum; steps are computed in the precision of their states.
            wide = torch.float32 if dtype in NARROW else dtype
            for n in names:
                wide = torch.promote_types(wide, state[n].dtype)
            tensors = [x.to(wide).reshape(batch, *a) for x, a in zip(inputs, atoms, strict=True)]
            weights = [p.to(wide).reshape(a) for p, a in zip(parameters, lengths, strict=True)]
            held = [state[n].to(wide) for n in names]
            with torch.autocast(inputs[0].device.type, enabled=False):
                output, *new = graph(*tensors, *weights, *held)
            return output.reshape(batch, *shape).to(dtype), dict(zip(names, new, strict=True))

        return step

    def check_inputs(self, inputs: Sequence[Tensor]) -> int:
        if len(inputs) != len(self.spec.inputs):
            raise SizeError(
                f"a step takes {len(self.spec.inputs)} inputs, {', '.join(self.spec.inputs)}, not {len(inputs)}"
            )
        batch = inputs[0].shape[0] if inputs[0].dim() else 0
        for name, x in zip(self.spec.inputs, inputs, strict=True):
            wanted = (batch, *self.shape(name))
            if tuple(x.shape) != wanted:
                raise SizeError(
                    f"'{name}' has shape {tuple(x.shape)}, but a step takes {wanted}: one position, without its axis"
                )
        return batch

    def lengths(self, tensor: str) -> list[int]:
        known = self.known
        return [value_of((a,), known) for slot in self.spec.shape(tensor) for a in slot]

    def atoms(self, tensor: str) -> list[int]:
        known = self.known
        return [value_of((a,), known) for slot in self.spec.shape(tensor) for a in slot if a != self.size]

    def shape(self, tensor: str) -> list[int]:
        """Return the shape of one position of a tensor: a slot of the ordered size is gone, or its block is left."""
        known, found = self.known, []
        for slot in self.spec.shape(tensor):
            rest = [a for a in slot if a != self.size]
            if rest or self.size not in slot:
                found.append(value_of(rest, known))
        return found

    def pieces(self, name: str, x: Tensor) -> list[Tensor]:
        """Return an input's positions one by one."""
        axis = self.axes[name]
        if axis is None:
            return [x]
        slot = self.spec.shape(name)[axis]
        block = value_of(slot[1:], self.known)
        if len(slot) == 1:
            return list(x.unbind(axis + 1))
        return list(x.unflatten(axis + 1, (-1, block)).unbind(axis + 1))

    def check_piece(self, inputs: Sequence[Tensor]) -> int:
        """Check the shapes of a piece of a sequence; return its number of positions, or of blocks.

        Raises:
            SizeError: an input has another rank, batch or number of positions than the others.
        """
        length, batch = 0, inputs[0].shape[0] if inputs[0].dim() else 0
        for name, x in zip(self.spec.inputs, inputs, strict=True):
            axis, slots = self.axes[name], self.spec.shape(name)
            if x.dim() != len(slots) + 1:
                raise SizeError(
                    f"'{name}' has {x.dim()} axes, but a piece of a sequence has {len(slots) + 1}, with (B, ...)"
                )
            wanted = [batch, *(value_of(slot, self.known) for slot in slots)]
            if axis is not None:
                block = value_of(slots[axis][1:], self.known)
                number, rest = divmod(x.shape[axis + 1], block)
                if rest:
                    raise SizeError(f"'{name}' has {x.shape[axis + 1]} positions, but comes in blocks of {block}")
                if length and number != length:
                    raise SizeError(f"'{name}' has {number} positions, but another input {length}")
                length, wanted[axis + 1] = number, x.shape[axis + 1]
            if list(x.shape) != wanted:
                raise SizeError(f"'{name}' has shape {tuple(x.shape)}, but this piece needs {tuple(wanted)}")
        if not length:
            raise SizeError("a piece of a sequence has at least one position")
        return length

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        axis = self.axes[self.spec.output]
        assert axis is not None
        if len(self.spec.shape(self.spec.output)[axis]) > 1:
            return torch.cat(list(outputs), axis + 1)
        return torch.stack(list(outputs), axis + 1)

    def run(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        """Return the output of a piece of a sequence, and the states after it."""
        length = self.check_piece(inputs)
        pieces = {n: self.pieces(n, x) for n, x in zip(self.spec.inputs, inputs, strict=True)}
        outputs, current = [], dict(state)
        for k in range(length):
            here = [pieces[n][k] if self.axes[n] is not None else pieces[n][0] for n in self.spec.inputs]
            y, current = self.step(here, parameters, current)
            outputs.append(y)
        return self.joined(outputs), current
