"""Layers that run position by position with the past kept: keys and values, or the last positions of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import PolyattnError, SizeError
from polyattn.language import value_of
from polyattn.language.conditions import comparison
from polyattn.lowering.caching import cache_of
from polyattn.lowering.functions import FUNCTIONS, constant_result, keep
from polyattn.nn.steps import State, Steps, Traced
from polyattn.planning.decoding import ordered_size, step_sizes
from polyattn.planning.past import Mask, Past
from polyattn.runtime.function import SpecFunction

POSITION = "position"
"""The state's name for the number of positions that have come, an int64 tensor without axes."""
LEAST, PIECE = 16, 512
"""Positions that a cache begins with, and those of a piece that run at once."""
LONG = 4
"""How many times what a piece reads a sequence has at least to be run in pieces and not with masks."""
REMEMBERED = 64
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
        RecurrenceError: without a recurrence, where a cache is not asked for.
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
        self.kept, self.reach = tuple(k.name for k in form.kept), form.reach
        self.masks = tuple(map(self._mask_form, form.masks))
        self.names = tuple(spec.inputs), tuple(spec.parameters)
        self.single = {n: axis for n, axis in self.axes.items() if axis is not None and len(spec.shape(n)[axis]) == 1}
        self.output = spec.output

    def functions(self, number: int, places: int) -> list[SpecFunction]:
        """Return the functions of this many new positions and all that are kept with them."""
        key = self.form, number, places, tuple(sorted(self.known.items()))
        if key not in self.made:
            if len(self.made) >= REMEMBERED:
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
        places = state[self.kept[0]].shape[1] if self.kept else 0
        return self.one(inputs, parameters, self.grown(state, 1, places), None)

    def one(
        self,
        inputs: Sequence[Tensor],
        parameters: Sequence[Tensor],
        state: Mapping[str, Tensor],
        functions: Sequence[SpecFunction] | None,
    ) -> tuple[Tensor, State]:
        """Return the output of one position, and the state behind it."""
        rows = [
            x.unsqueeze(self.single[n] + 1) if n in self.single else x
            for n, x in zip(self.names[0], inputs, strict=True)
        ]
        y, state = self.advance(rows, parameters, state, 1, functions)
        return (y.squeeze(self.single[self.output] + 1) if self.output in self.single else y), state

    def traced_step(self, places: int) -> Traced:
        functions = self.functions(1, places + 1)

        def step(
            inputs: Sequence[Tensor], parameters: Sequence[Tensor], state: Mapping[str, Tensor]
        ) -> tuple[Tensor, State]:
            if self.reach is None:
                torch._assert_async(state[POSITION] < places, "the cache is full: give `initial_state` its `length`")
            return self.one(inputs, parameters, state, functions)

        return step

    def grown(self, state: Mapping[str, Tensor], number: int, places: int) -> State:
        """Return a state with places for this many more positions."""
        held = dict(state)
        if self.reach is None and self.kept and (come := int(state[POSITION]) + number) > places:
            more = max(LEAST, 1 << (come - 1).bit_length()) - places
            for n in self.kept:
                held[n] = torch.cat([held[n].new_zeros(held[n].shape[0], more, *held[n].shape[2:]), held[n]], 1)
        return held

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
            places = current[self.kept[0]].shape[1] if self.kept else 0
            y, current = self.advance(here, parameters, self.grown(current, number, places), number, None)
            outputs.append(y)
        axis = self.axes[self.spec.output]
        assert axis is not None
        return torch.cat(outputs, axis + 1), current

    def advance(
        self,
        rows: Sequence[Tensor],
        parameters: Sequence[Tensor],
        state: Mapping[str, Tensor],
        number: int,
        functions: Sequence[SpecFunction] | None,
    ) -> tuple[Tensor, State]:
        """Return the output of new positions, and the state behind them."""
        position = state[POSITION]
        places = state[self.kept[0]].shape[1] if self.kept else 0
        functions = self.functions(number, places + number) if functions is None else functions
        device, dtype = rows[0].device, rows[0].dtype
        first = position.to(device)
        new = torch.arange(number, device=device) + first
        past = torch.arange(places + number, device=device) + (first - places)
        past = torch.where(past < 0, NEVER, past)
        here: dict[str, Tensor] = dict(zip(self.names[0], rows, strict=True))
        here |= dict(zip(self.names[1], parameters, strict=True))
        for name, on_rows, factors, total, relation in self.masks:
            found: Any = total
            for axis, (row, factor) in enumerate(zip(on_rows, factors, strict=True)):
                shape = [-1 if k == axis else 1 for k in range(len(on_rows))]
                found = found + factor * (new if row else past).reshape(shape)
            holds = found <= 0 if relation == "<=" else found == 0 if relation == "==" else found != 0
            here[name] = holds.to(dtype)
        for name, function in zip(self.kept, functions, strict=False):
            value = function(here)
            here[name] = torch.cat([state[name].to(value.dtype), value], 1)
        y = functions[-1](here)
        after = {n: here[n][:, number:] for n in self.kept}
        return y, {**after, POSITION: position + number}

    def _mask_form(self, mask: Mask) -> tuple[str, tuple[bool, ...], tuple[int, ...], int, str]:
        """Return a condition as its name, which axes are of new positions, their factors, the number and relation."""
        compared = comparison(mask.condition)
        total = compared.number + sum(c * value_of(tuple(n.split("*")), self.known) for n, c in compared.sizes)
        return mask.name, mask.rows, compared.slots, total, compared.relation


class WindowRunner:
    """A whole sequence of a layer whose positions read the last ones only, in pieces of about a window."""

    def __init__(self, steps: CachedSteps):
        self.steps = steps

    def run(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        state: Mapping[str, Tensor] | None,
        length: int,
    ) -> tuple[Tensor, State]:
        """Return the output of a sequence, and the state behind it; the length of pieces is the window's."""
        first, steps = inputs[0], self.steps
        state = state if state is not None else steps.initial(first.shape[0], first.dtype, first.device)
        return steps.run(inputs, [parameters[n] for n in steps.spec.parameters], state)


def window_runner(
    spec: Spec,
    sizes: Mapping[str, int],
    order: str | None,
    objective: str,
    functions: Functions,
    made: dict[Any, Any],
) -> WindowRunner | None:
    """Return the runner of a long sequence in pieces of about a window; None without a window, or for a short one."""
    try:
        running = ordered_size(spec, order)
        steps = steps_of(spec, sizes, order, "auto", objective, functions, made)
    except PolyattnError:
        return None
    if not isinstance(steps, CachedSteps) or steps.reach is None:
        return None
    length = spec.sizes.solve(dict(sizes), (running,))[running]
    return WindowRunner(steps) if length >= LONG * (max(64, steps.reach) + steps.reach) else None


def sizes_of_step(
    spec: Spec, sizes: Mapping[str, int], order: str | None, shapes: Mapping[str, Sequence[int]], piece: bool
) -> dict[str, int]:
    """Return the sizes of a step: those given, and others from the shapes of inputs without their batch.

    Args:
        piece: whether the shapes are of a piece of a sequence, and not of one position.
    """
    known, running = dict(sizes), ordered_size(spec, order)
    for name, shape in shapes.items():
        # One position has no axis of the ordered size, unless it is a block.
        slots = [s for s in spec.shape(name) if piece or s != (running,)]
        for slot, length in zip(slots, shape, strict=False):
            size = spec.sizes.name(slot)
            if running not in slot and size in spec.sizes.names:
                known.setdefault(size, int(length))
    return known


@constant_result
def traced_step(
    text: str,
    sizes: tuple[tuple[str, int], ...],
    shapes: tuple[tuple[int, ...], ...],
    order: str | None,
    state: str,
    objective: str,
    own: tuple[tuple[str, str], ...],
    places: int,
) -> str:
    """Return the name in `polyattn.lowering.FUNCTIONS` of a layer's step for a compiler.

    Args:
        shapes: of the inputs of one position, without their batch.
        own: functions of the user's own, by their names there.
        places: those of a cache.
    """
    return _traced_step(text, sizes, shapes, order, state, objective, own, places)


@lru_cache(maxsize=256)
def _traced_step(
    text: str,
    sizes: tuple[tuple[str, int], ...],
    shapes: tuple[tuple[int, ...], ...],
    order: str | None,
    state: str,
    objective: str,
    own: tuple[tuple[str, str], ...],
    places: int,
) -> str:
    spec = Spec(text)
    known = sizes_of_step(spec, dict(sizes), order, dict(zip(spec.inputs, shapes, strict=True)), False)
    functions = {n: getattr(FUNCTIONS, f) for n, f in own}
    return keep(steps_of(spec, known, order, state, objective, functions, {}).traced_step(places))
