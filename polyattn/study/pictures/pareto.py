"""Pareto plots: a cost of each layer against a number of the reader's own, such as its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from polyattn.errors import SizeError
from polyattn.study.pictures.style import INK, figure, log_ticks, look, plain
from polyattn.study.printing import title
from polyattn.study.study import QUANTITIES, Case, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Own = Mapping[str, float] | Callable[[Case], float | None]
"""A number for each layer by its name, or a function of a case; None leaves the case out."""


def pareto(
    study: Study,
    own: Own,
    label: str,
    quantity: str = "macs",
    *,
    larger: bool = True,
    orders: Sequence[str] | None = None,
) -> Figure:
    """Draw each case by its cost and a number of one's own; a line joins those that no other case beats in both.

    Args:
        study: a study, of one point or several.
        own: a number for each layer by its name, such as measured accuracies, or a function of a `Case`.
        label: name of the quantity, for the axis.
        quantity: one of `QUANTITIES`.
        larger: whether larger numbers of one's own are better.
        orders: as in `cost_curves`.

    Raises:
        SizeError: a name in `own` is not a layer of the study, no case has both numbers, or the quantity or an order
            is unknown.
        MissingPackageError: matplotlib is not installed.
    """
    from polyattn.study.pictures.curves import choose_orders

    orders = choose_orders(study, quantity, orders)
    names = [name for name, _ in study.layers]
    if isinstance(own, Mapping):
        for name in own:
            if name not in names:
                raise SizeError(f"`own` names {name!r}, which is not a layer of the study; it has {', '.join(names)}")
    points = []
    for case in study.cases:
        value = own.get(case.layer) if isinstance(own, Mapping) else own(case)
        if case.order in orders and value is not None and getattr(case, quantity) > 0:
            points.append((float(getattr(case, quantity)), float(value), case))
    if not points:
        raise SizeError(f"no case has both a positive {quantity} and a number of `own`")
    made = figure(7.2, 4.4)
    axes = made.subplots()
    shown = [n for n in names if any(c.layer == n for _, _, c in points)]
    for k, name in enumerate(shown):
        mine = [(x, y) for x, y, c in points if c.layer == name]
        axes.plot(
            *zip(*mine, strict=True),
            **look(k),
            linestyle="none",
            label=plain(name),
        )
    kept = front([(x, y) for x, y, _ in points], larger)
    axes.plot(*zip(*kept, strict=True), color=INK, linewidth=0.9, zorder=0, label="none is better in both")
    axes.set(xscale="log", xlabel=QUANTITIES[quantity], ylabel=plain(label))
    log_ticks(axes.xaxis)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(plain(title(study)), fontsize=9, loc="left")
    made.legend(loc="outside right upper", frameon=False, fontsize=8)
    return made


def front(points: Sequence[tuple[float, float]], larger: bool = True) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both numbers, the cheapest first.

    >>> front([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8)])
    [(1, 0.5), (3, 0.9)]
    """
    kept: list[tuple[float, float]] = []
    sign = -1 if larger else 1
    for x, y in sorted(points, key=lambda p: (p[0], sign * p[1])):
        if not kept or sign * y < sign * kept[-1][1]:
            kept.append((x, y))
    return kept
