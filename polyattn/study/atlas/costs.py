"""The costs of a layer of the atlas: its plan at usual sizes, and multiply-accumulates against a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polyattn.algebra import Spec
from polyattn.errors import PolyattnError
from polyattn.planning import BATCH, Plan, question, ranked_plans
from polyattn.study.report import sizes as usual

LENGTHS = tuple(2**k for k in range(5, 15))
"""The lengths of the first axis of positions at which costs are counted."""

PROBES = (LENGTHS[0], LENGTHS[4], LENGTHS[-1])
"""The lengths that plans are made for; each curve is the lowest of theirs."""


@dataclass(frozen=True)
class Costs:
    """Costs of a layer.

    Attributes:
        axis: the size that varies.
        sizes: the numbers of the others, with B for the batch.
        plan: the plan at these sizes, printed.
        points: for each length the multiply-accumulates of the author's order and of the cheapest plan.
    """

    axis: str
    sizes: Mapping[str, int]
    plan: str
    points: tuple[tuple[int, int, int], ...]


def costs(spec: Spec) -> Costs | None:
    """Return the costs of a layer; None if it cannot be planned at usual sizes."""
    try:
        return _costs(spec)
    except PolyattnError:  # too large, or an axis that a split divides
        return None


def _costs(spec: Spec) -> Costs | None:
    sizes = usual.start(spec, {usual.BATCH: 1})
    shown = ranked_plans(question(spec, sizes, "forward", cost="macs"), 1)[0]
    axis = next(iter(spec.inputs.values()), ("",))[0]
    if not axis.isidentifier() or spec.sizes.parts(axis):
        return Costs(axis, sizes, str(shown), ())
    written = ranked_plans(question(spec, sizes, "as_written"), 1)[0]
    planned = [ranked_plans(question(spec, {**sizes, axis: n}, "forward", cost="macs"), 1)[0] for n in PROBES]
    points = tuple(
        (n, _macs(written, sizes, axis, n), min(_macs(p, sizes, axis, n) for p in (written, *planned)))
        for n in LENGTHS
    )  # fmt: skip
    return Costs(axis, sizes, str(shown), points)


def _macs(plan: Plan, sizes: Mapping[str, int], axis: str, length: int) -> int:
    return plan.at({**sizes, axis: length, BATCH: sizes[usual.BATCH]}).macs
