"""Cost curves: one size along the axis, a curve for each layer and order, crossovers marked."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

from polyattn.errors import SizeError
from polyattn.study.pictures.style import INK, LINES, PAPER, figure, log_ticks, look, plain
from polyattn.study.printing import title
from polyattn.study.study import MODULE, QUANTITIES, Case, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 3
"""Greatest number of crossings for which all are labelled; of more only those of the cheapest layers."""
MOST_TICKS = 8
"""Greatest number of labelled points on the axis of sizes."""
PANEL, LABEL = (290, 190), (62, 13)
"""Width and height in points: of a panel, a little less than it has, and of a ring's label with its surroundings."""
ROOM = 9
"""Greatest number of panels: one for each combination of the other varying sizes."""


def cost_curves(
    study: Study, quantity: str = "macs", *, over: str | None = None, orders: Sequence[str] | None = None
) -> Figure:
    """Draw the cost of layers against one size, on logarithmic axes; rings mark crossings.

    The curves are straight between the study's points, and so are the crossings read off them: `crossover` finds those
    of two plans exactly.

    Args:
        study: a study with at least one varying size.
        quantity: one of `QUANTITIES`, such as "macs", "peak_bytes" or "measured_seconds" (predicted ones are then
            drawn beside them, thin).
        over: the size along the axis; by default the one with the most values. Each combination of the other varying
            sizes is a panel.
        orders: the orders to draw; by default all for one layer, else the planned one.

    Returns:
        The figure. A layer is a colour and a marker, an order a style of line.

    Raises:
        SizeError: no size varies, the quantity or order is unknown, or there are more than nine panels.
        MissingPackageError: matplotlib is not installed.
    """
    over = _axis(study, over)
    orders = choose_orders(study, quantity, orders)
    if not any(getattr(c, quantity) for c in study.cases if c.order in orders):
        raise SizeError(
            f"`quantity` {quantity!r} is 0 at all points, which a logarithmic axis cannot show"
            + ("; a study of one forward pass keeps nothing" if quantity == "kept_bytes" else "")
        )
    panels = _panels(study, over)
    # More than three columns would make panels narrower than their labels.
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    made = figure(2.2 + 4.4 * columns, 0.9 + 3.2 * rows)
    # One scale for all panels, so that they can be compared.
    grid = made.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (heading, cases) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, study, cases, over, quantity, orders)
        axes.set_title(heading, fontsize=9, loc="left")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    grid[0][0].set_ylabel(QUANTITIES[quantity])
    where = f", {study.device.name}" if quantity in ("predicted_seconds", "measured_seconds") else ""
    made.suptitle(plain(title(study) + where), fontsize=9, x=0.02, ha="left")
    handles, labels = grid[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3.6)
    return made


def _axis(study: Study, over: str | None) -> str:
    if not study.varied:
        raise SizeError("no size varies in this study: give one several values, such as N=[196, 784, 3136]")
    if over is None:
        return max(study.varied, key=lambda n: len({dict(c.point)[n] for c in study.cases}))
    if over not in study.varied:
        raise SizeError(f"size {over!r} does not vary in this study; those that do are {', '.join(study.varied)}")
    return over


def choose_orders(study: Study, quantity: str, orders: Sequence[str] | None) -> tuple[str, ...]:
    """Return the orders to draw: those given, or all of one layer's, or the planned one; modules always.

    Raises:
        SizeError: the quantity or an order is unknown, or not in the study.
    """
    if quantity not in QUANTITIES:
        raise SizeError(f"unknown quantity {quantity!r}; there are {', '.join(QUANTITIES)}")
    if quantity == "measured_seconds" and not study.measured:
        raise SizeError("nothing was measured in this study: make it with measure=True")
    if orders is None:
        several = len(study.layers) > 1 and "planned" in study.orders
        orders = ("planned",) if several else study.orders
    for order in orders:
        if order not in study.orders:
            raise SizeError(f"the study has no order {order!r}; it has {', '.join(study.orders)}")
    # A module has no order but its own code's, and stands beside those of the layers.
    return tuple(dict.fromkeys((*orders, *(o for o in study.orders if o == MODULE))))


def _panels(study: Study, over: str) -> dict[str, list[Case]]:
    others = [n for n in study.varied if n != over]
    found: dict[str, list[Case]] = {}
    for case in study.cases:
        point = dict(case.point)
        found.setdefault(", ".join(f"{n} = {point[n]:,}" for n in others), []).append(case)
    if len(found) > ROOM:
        raise SizeError(f"{', '.join(others)} have {len(found)} combinations, and a figure has room for {ROOM}")
    return found


def _panel(axes: Axes, study: Study, cases: list[Case], over: str, quantity: str, orders: Sequence[str]) -> None:
    from polyattn.study.pictures.crossings import crossings

    curves: list[list[Case]] = []
    drawn = [o for o in orders if o != MODULE]
    for k, (layer, _) in enumerate(study.layers):
        for order in orders:
            mine = sorted((c for c in cases if (c.layer, c.order) == (layer, order)), key=lambda c: dict(c.point)[over])
            if not mine:
                continue
            curves.append(mine)
            xs = [dict(c.point)[over] for c in mine]
            # With one layer the order gets the looks that otherwise tell layers apart.
            own = study.orders.index(order)
            line = LINES[own % len(LINES) if len(study.layers) == 1 or len(drawn) > 1 else k % len(LINES)]
            mark = own + k if len(study.layers) == 1 else k
            style = {**look(mark), "linestyle": line}
            label = plain(
                order
                if len(study.layers) == 1
                else layer
                if order == MODULE or len(drawn) == 1
                else f"{layer}, {order}"
            )
            axes.plot(xs, [getattr(c, quantity) for c in mine], **style, markersize=5, linewidth=1.8, label=label)
            if quantity == "measured_seconds":
                predicted = [c.predicted_seconds for c in mine]
                axes.plot(xs, predicted, **style, markersize=0, linewidth=0.7, label=f"{label}, predicted")
    axes.set(xscale="log", yscale="log", xlabel=over)
    numbers = sorted({dict(c.point)[over] for c in cases})
    # Ticks at the counted points; of many, at every other one and so on.
    ticks = numbers[:: -(-len(numbers) // MOST_TICKS)]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks], fontsize=8, rotation=45 if len(ticks) > MOST_TICKS // 2 else 0)
    axes.minorticks_off()
    log_ticks(axes.yaxis)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    found = crossings(curves, over, quantity)
    placed: list[tuple[float, float]] = []
    for crossing in found:
        axes.plot(crossing.x, crossing.y, marker="o", markersize=11, fillstyle="none", color=INK, linestyle="none")
        # Many labels would cover the curves.
        if crossing.lowest or len(found) <= FEW:
            _label(axes, f"{over} = {round(crossing.x):,}", (crossing.x, crossing.y), placed)


def _label(axes: Axes, text: str, point: tuple[float, float], placed: list[tuple[float, float]]) -> None:
    """Write beside a ring, below or above it, where no other label of a ring is; else nowhere."""
    here = []
    for number, axis, points in zip(point, (axes.xaxis, axes.yaxis), PANEL, strict=True):
        low, high = axis.get_view_interval()
        here.append(points * log(number / low) / log(high / low))
    for down in (-13, 6):
        if any(abs(here[0] - x) < LABEL[0] and abs(here[1] + down - y) < LABEL[1] for x, y in placed):
            continue
        placed.append((here[0], here[1] + down))
        axes.annotate(
            text,
            point,
            textcoords="offset points",
            xytext=(8, down),
            fontsize=8,
            color=INK,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8},
        )
        return
