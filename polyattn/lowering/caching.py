"""The choice between a recurrence and a cache for decoding, and the plan of a step with a cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from polyattn.algebra import Spec
from polyattn.errors import RecurrenceError, SizeError
from polyattn.lowering.planner import whole_plan
from polyattn.planning.cached_plan import CachedPlan
from polyattn.planning.decoding import DecodingPlan, decoding_plan, step_sizes
from polyattn.planning.past import Past, past
from polyattn.planning.recurrence import recurrence
from polyattn.planning.steps import BATCH

STATES = ("auto", "recurrence", "cache")
KEPT = 1024
"""Positions at which the costs of a cache are counted unless the ordered size is given."""


def decoding(
    spec: Spec | str,
    sizes: Mapping[str, int],
    order: str | None = None,
    batch: int | None = None,
    state: str = "auto",
) -> DecodingPlan | CachedPlan:
    """Return the plan of one step of a causal specification, as a recurrence or with the past kept; see `plan`."""
    spec = Spec(spec) if isinstance(spec, str) else spec
    running, known = step_sizes(spec, sizes, order, batch)
    form = cache_of(spec, running, state, *sorted(known.items()))
    if form is None:
        return decoding_plan(spec, sizes, order, batch)
    if form.reach is None:
        whole = spec.sizes.name((running,)) if running in spec.sizes.names else running
        atoms = {n: v for n, v in known.items() if n in spec.sizes.atomic and n != running}
        length = spec.sizes.solve({**atoms, whole: sizes.get(whole, KEPT)}, (running,))[running] - 1
    else:
        length = form.reach
    numbers = {**known, form.row: 1, running: length + 1}
    plans = tuple(
        whole_plan(part, {n: v for n, v in numbers.items() if n in part.sizes.atomic}, batch=known[BATCH])
        for part in form.parts
    )
    return CachedPlan(spec, running, form, length, plans)


@lru_cache(maxsize=256)
def cache_of(spec: Spec, running: str, state: str, *known: tuple[str, int]) -> Past | None:
    """Return the equations with the past kept; None for a recurrence.

    Args:
        state: "recurrence", "cache", or "auto": a recurrence if there is one, else the past where only the last
            positions of it are read.

    Raises:
        RecurrenceError: without a recurrence, where a cache is not asked for, or none would do.
        SizeError: `state` is unknown.
    """
    if state not in STATES:
        raise SizeError(f"`state` is {state!r}; there are {', '.join(map(repr, STATES))}")
    others = tuple((n, v) for n, v in known if n != running)
    if state == "cache":
        return past(spec, running, others)
    try:
        recurrence(spec, running, dict(known))
        return None
    except RecurrenceError as error:
        try:
            form = past(spec, running, others)
        except RecurrenceError:
            raise error from None
        if state == "auto" and form.reach is not None:
            return form
        numbers = form.numbers(dict(known))
        raise RecurrenceError(f'{error}; state="cache" keeps {numbers:,} numbers of each position') from None
