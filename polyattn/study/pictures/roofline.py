"""The roofline: a device's limit at each arithmetic intensity, with layers on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from textwrap import fill
from typing import TYPE_CHECKING, Any

from polyattn.errors import SizeError
from polyattn.study.pictures.style import INK, QUIET, compact, figure, log_ticks, look, plain
from polyattn.study.printing import title
from polyattn.study.study import MODULE, Case, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Points = tuple[float, float] | Sequence[tuple[float, float]]


def roofline(
    study: Study, *, orders: Sequence[str] | None = None, points: Mapping[str, Points] | None = None
) -> Figure:
    """Draw each layer of a study by its FLOPs per byte and FLOPs per second, under the roof of the study's device.

    Times are the measured ones if the study has them, else the roofline's own predictions, which price each step by
    itself, short matrices at a lower rate. Points of one layer and order are joined along the sweep; a layer is a
    colour and a marker, filled for the planned order. One multiply-accumulate is two FLOPs.

    Args:
        study: the layers, and the device.
        orders: as in `cost_curves`.
        points: measurements of one's own by name, each FLOPs per byte and FLOPs per second, or several such pairs.

    Raises:
        SizeError: the study does not have the order, or a point is not a pair of positive finite numbers.
        MissingPackageError: matplotlib is not installed.
    """
    from polyattn.study.pictures.curves import choose_orders

    own = {name: _pairs(name, given) for name, given in (points or {}).items()}
    orders = choose_orders(study, "measured_seconds" if study.measured else "predicted_seconds", orders)
    device = study.device
    made = figure(7.2, 4.4)
    axes = made.subplots()
    # A layer without products has no place on a logarithmic axis.
    cases = [c for c in study.cases if c.order in orders and c.macs]
    # To the left of the ridge memory is the limit, to the right arithmetic.
    ridge = 2 * device.macs_per_second / device.bytes_per_second
    low = min(
        [ridge / 16, *(c.flops_per_byte / 2 for c in cases), *(x / 2 for several in own.values() for x, _ in several)]
    )
    high = max(
        [ridge * 8, *(c.flops_per_byte * 2 for c in cases), *(2 * x for several in own.values() for x, _ in several)]
    )
    roof = [(x, min(2 * device.macs_per_second, x * device.bytes_per_second)) for x in (low, ridge, high)]
    axes.plot(*zip(*roof, strict=True), color=INK, linewidth=2.2)
    axes.annotate(
        f"{compact(2 * device.macs_per_second)}FLOP/s",
        roof[2],
        textcoords="offset points",
        xytext=(0, 5),
        ha="right",
        fontsize=8,
    )
    axes.annotate(
        f"{compact(device.bytes_per_second)}B/s", roof[0], textcoords="offset points", xytext=(14, -8), fontsize=8
    )
    for k, (layer, _) in enumerate(study.layers):
        for order in orders:
            mine = [c for c in cases if (c.layer, c.order) == (layer, order)]
            if not mine:
                continue
            filled = order == "planned"
            axes.plot(
                [c.flops_per_byte for c in mine],
                [_rate(c) for c in mine],
                **look(k),
                fillstyle="full" if filled else "none",
                linestyle="-" if filled else ":",
                linewidth=0.9,
                label=plain(layer if len(orders) == 1 or order == MODULE else f"{layer}, {order}"),
            )
    for k, (name, several) in enumerate(own.items(), len(study.layers)):
        axes.plot(
            *zip(*several, strict=True),
            **look(k),
            markersize=8,
            linestyle="none",
            label=plain(f"{name}, own measurement"),
        )
    kind = "measured" if study.measured else "predicted"
    axes.set(xscale="log", yscale="log", xlabel="FLOPs per byte moved (float32)", ylabel=f"FLOPs per second, {kind}")
    # The legend is to the right of the axes: a longer line would run into it.
    heading = fill(f"{title(study)}, {device.name}", 56)
    axes.set_title(plain(heading), fontsize=9, loc="left", color=QUIET)
    log_ticks(axes.xaxis)
    log_ticks(axes.yaxis)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside right upper", frameon=False, fontsize=8, handlelength=3)
    return made


def _pairs(name: str, given: Points) -> list[tuple[float, float]]:
    """Return one's own points as pairs of FLOPs per byte and FLOPs per second."""
    several: Any = [given] if len(given) == 2 and not isinstance(given[0], Sequence) else given
    try:
        found = [(float(x), float(y)) for x, y in several]
    except (TypeError, ValueError):
        found = []
    if not found or not all(0 < n < inf for pair in found for n in pair):
        raise SizeError(
            f"`points` of {name!r}: expected positive pairs (FLOPs per byte, FLOPs per second), found {given!r}"
        )
    return found


def _rate(case: Case) -> float:
    return 2 * case.macs / (case.measured_seconds or case.predicted_seconds)
