"""Layers that run position by position with the past kept: keys and values, or the last positions of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.language.conditions import comparison
from polyattn.lowering.caching import cache_of
from polyattn.nn.steps import State, Steps
from polyattn.planning.decoding import step_sizes
from polyattn.planning.past import Mask, Past
from polyattn.runtime.function import SpecFunction

POSITION = "position"
"""The state's name for the number of positions that have come, an int64 tensor without axes."""
LEAST, PIECE = 16, 512
"""Positions that a cache begins with, and those of a piece that run at once."""
FUNCTIONS = 64
"""Numbers of positions of which the functions are remembered."""
NEVER = 2**40
"""The position of a place in a cache that is still empty: behind all others."""

Functions = Mapping[str, Callable[[Tensor], Tensor]]


def steps_of(
    spec: Spec,
    sizes: Mapping[str, int],
    order: str | None,
    state: str,
    objective: str,
    functions: Functions,
    made: dict[Any, Any],
) -> Steps:
    """Return the steps of a specification: a recurrence, or with the past kept.

    Args:
        state: see `polyattn.plan`.
        made: the functions of earlier calls, which are reused.

    Raises:
        RecurrenceError: there is no recurrence, and a cache is not asked for.
    """
    running, known = step_sizes(spec, sizes, order, None)
    form = cache_of(spec, running, state, *sorted(known.items()))
    return (
        Steps(spec, sizes, order)
        if form is None
        else CachedSteps(spec, known, running, form, objective, functions, made)
    )


class CachedSteps(Steps):
    """The steps of a specification with the past kept, at given sizes.

    The state has, for each kept tensor, (B, places, *channels) with the last position at the end, and the number of
    positions that have come. Without a window the places double when they are full.
    """

    def __init__(
        self,
        spec: Spec,
        known: Mapping[str, int],
        running: str,
        form: Past,
        objective: str,
        functions: Functions,
        made: dict[Any, Any],
    ):
        self.spec, self.form, self.size = spec, form, running
        self.known = dict(known)
        self.axes = self._axes()
        self.objective, self.own, self.made = objective, functions, made

    def functions(self, number: int, places: int) -> list[SpecFunction]:
        """Return the functions of this many new positions and all that are kept with them."""
        key = self.form, number, places, tuple(sorted(self.known.items()))
        if key not in self.made:
            if len(self.made) >= FUNCTIONS:
                self.made.pop(next(iter(self.made)))
            known = {**self.known, self.form.row: number, self.size: places}
            self.made[key] = [
                SpecFunction(
                    part,
                    {n: v for n, v in known.items() if n in part.sizes.atomic},
                    self.objective,
                    {n: f for n, f in self.own.items() if n in part.functions},
                    "any",
                )
                for part in self.form.parts
            ]
        return self.made[key]

    def initial(self, batch: int, dtype: torch.dtype, device: Any, length: int | None = None) -> State:
        """Return a cache without positions, with places for `length` of them, those of the window if there is one."""
        places = self.form.reach if self.form.reach is not None else length or LEAST
        shapes = {k.name: [value_of((a,), self.known) for a in k.channels] for k in self.form.kept}
        state = {n: torch.zeros(batch, places, *s, dtype=dtype, device=device) for n, s in shapes.items()}
        return {**state, POSITION: torch.zeros((), dtype=torch.int64)}

    def check_state(self, state: Mapping[str, Tensor], batch: int) -> None:
        wanted = {*(k.name for k in self.form.kept), POSITION}
        if not isinstance(state, Mapping) or set(state) != wanted:
            have = ", ".join(state) if isinstance(state, Mapping) else type(state).__name__
            raise SizeError(f"`state` has {have or 'nothing'}, but this layer's is {', '.join(sorted(wanted))}")
        for kept in self.form.kept:
            found = tuple(state[kept.name].shape)
            places = self.form.reach if self.form.reach is not None else found[1] if len(found) > 1 else 0
            shape = (batch, places, *(value_of((a,), self.known) for a in kept.channels))
            if found != shape:
                raise SizeError(
                    f"`state[{kept.name!r}]` has shape {found}, but this step needs {shape}: a state belongs to one "
                    f"batch and one layer"
                )

    def step(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        batch = self.check_inputs(inputs)
        self.check_state(state, batch)
        rows = []
        for name, x in zip(self.spec.inputs, inputs, strict=True):
            axis = self.axes[name]
            single = axis is not None and len(self.spec.shape(name)[axis]) == 1
            rows.append(x.unsqueeze(axis + 1) if single and axis is not None else x)
        y, state = self.advance(rows, parameters, state, 1)
        axis = self.axes[self.spec.output]
        assert axis is not None
        return (y.squeeze(axis + 1) if len(self.spec.shape(self.spec.output)[axis]) == 1 else y), state

    def run(
        self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
    ) -> tuple[Tensor, State]:
        length = self.check_piece(inputs)
        self.check_state(state, inputs[0].shape[0])
        piece = PIECE if self.form.reach is None else max(64, self.form.reach)
        outputs, current = [], dict(state)
        for start in range(0, length, piece):
            number = min(piece, length - start)
            here = []
            for name, x in zip(self.spec.inputs, inputs, strict=True):
                axis = self.axes[name]
                block = 1 if axis is None else value_of(self.spec.shape(name)[axis][1:], self.known)
                here.append(x if axis is None else x.narrow(axis + 1, start * block, number * block))
            y, current = self.advance(here, parameters, current, number)
            outputs.append(y)
        axis = self.axes[self.spec.output]
        assert axis is not None
        return torch.cat(outputs, axis + 1), current

    def advance(
        self, rows: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor], number: int
    ) -> tuple[Tensor, State]:
        """Return the output of new positions, and the state behind them."""
        held = {k.name: state[k.name] for k in self.form.kept}
        position = state[POSITION]
        places = next(iter(held.values())).shape[1] if held else 0
        if held and self.form.reach is None:
            if torch.compiler.is_compiling():
                torch._assert_async(position + number <= places, "the cache is full: reserve more places")
            elif (come := int(position) + number) > places:
                more = max(LEAST, 1 << (come - 1).bit_length()) - places
                held = {n: torch.cat([x.new_zeros(x.shape[0], more, *x.shape[2:]), x], 1) for n, x in held.items()}
                places += more
        device, dtype = rows[0].device, rows[0].dtype
        first = position.to(device)
        new = torch.arange(number, device=device) + first
        past = torch.arange(places + number, device=device) + (first - places)
        past = torch.where(past < 0, NEVER, past)
        here: dict[str, Tensor] = dict(zip(self.spec.inputs, rows, strict=True))
        here |= dict(zip(self.spec.parameters, parameters, strict=True))
        here |= {m.name: self._mask(m, new, past).to(dtype) for m in self.form.masks}
        functions = self.functions(number, places + number)
        for kept, function in zip(self.form.kept, functions, strict=False):
            value = function(here)
            here[kept.name] = torch.cat([held[kept.name].to(value.dtype), value], 1)
        y = functions[-1](here)
        after = {n: here[n][:, number:] for n in held}
        return y, {**after, POSITION: position + number}

    def _mask(self, mask: Mask, new: Tensor, past: Tensor) -> Tensor:
        """Return where a condition holds."""
        compared = comparison(mask.condition)
        total: Any = compared.number + sum(c * value_of(tuple(n.split("*")), self.known) for n, c in compared.sizes)
        for axis, (row, factor) in enumerate(zip(mask.rows, compared.slots, strict=True)):
            shape = [1] * len(mask.rows)
            shape[axis] = -1
            total = total + factor * (new if row else past).reshape(shape)
        if compared.relation == "<=":
            return total <= 0
        return total == 0 if compared.relation == "==" else total != 0
