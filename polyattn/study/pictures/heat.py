"""Heat maps: a cost over two sizes, or two layers' costs divided by each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polyattn.errors import SizeError
from polyattn.study.pictures.style import INK, PAPER, compact, figure, log_ticks, plain
from polyattn.study.printing import title
from polyattn.study.study import QUANTITIES, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 144
"""Greatest number of cells that have their number written into them."""
DARK = 0.6
"""Share of the scale from which on numbers are light."""


def heat_map(study: Study, quantity: str = "macs", *, order: str | None = None) -> Figure:
    """Draw a quantity over the two varying sizes of a study: a row of maps, one for each layer, on one scale.

    Of two layers a third map has the first one's cost divided by the second's, on a scale with its middle at 1. Above
    it the second layer is cheaper.

    Args:
        study: a study with exactly two varying sizes.
        quantity: one of `QUANTITIES`.
        order: the order of contraction; by default "planned", or the study's only one.

    Raises:
        SizeError: another number of sizes varies, the quantity or the order is unknown, or the quantity is 0 somewhere.
        MissingPackageError: matplotlib is not installed.
    """
    from polyattn.study.pictures.curves import choose_orders

    if len(study.varied) != 2:
        raise SizeError(
            f"a heat map needs a study in which two sizes vary; found {', '.join(study.varied) or 'none that do'}"
        )
    if order is None and len(study.orders) > 1 and "planned" in study.orders:
        order = "planned"
    (order,) = choose_orders(study, quantity, [order] if order else study.orders[:1])[:1]
    first, second = study.varied
    numbers = [sorted({dict(c.point)[name] for c in study.cases}) for name in (first, second)]
    maps: dict[str, np.ndarray] = {}
    for layer, _ in study.layers:
        found = np.full([len(n) for n in numbers], np.nan)
        for case in study.cases:
            if case.layer == layer and case.order in (order, "module"):
                point = dict(case.point)
                found[numbers[0].index(point[first]), numbers[1].index(point[second])] = getattr(case, quantity)
        maps[layer] = found
    if any(not np.nanmin(m) > 0 for m in maps.values()):
        raise SizeError(f"`quantity` {quantity!r} is 0 somewhere, which a logarithmic scale cannot show")
    both = len(maps) == 2
    shown = list(maps.items())
    if both:
        (one, left), (two, right) = shown
        shown.append((f"{one} / {two}", left / right))
    colours = __import__("matplotlib.colors", fromlist=["LogNorm"])
    width, height = max(2.0, 0.55 * len(numbers[1])), max(1.8, 0.35 * len(numbers[0]))
    made = figure(1.0 + (width + 1.0) * len(shown), 1.3 + height)
    low, high = (f([f(m[np.isfinite(m)]) for m in maps.values()]) for f in (np.min, np.max))
    for k, (axes, (name, values)) in enumerate(zip(made.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)):
        ratio = both and k == 2
        far = max(1.01, float(np.exp(np.nanmax(np.abs(np.log(values)))))) if ratio else 1.0
        scale = colours.LogNorm(1 / far, far) if ratio else colours.LogNorm(low, max(high, low * 1.01))
        image = axes.imshow(values, cmap="PuOr" if ratio else "Blues", norm=scale, origin="lower", aspect="auto")
        axes.set_xticks(range(len(numbers[1])), [f"{n:,}" for n in numbers[1]], fontsize=8, rotation=45)
        axes.set_yticks(range(len(numbers[0])), [f"{n:,}" for n in numbers[0]], fontsize=8)
        axes.set(xlabel=second, ylabel=first if k == 0 else "")
        axes.set_title(plain(name), fontsize=9, loc="left")
        bar = made.colorbar(image, ax=axes, shrink=0.9)
        log_ticks(bar.ax.yaxis, "{:.3g}".format if ratio else compact)
        bar.ax.tick_params(labelsize=7)
        if values.size <= MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(values):
                if np.isfinite(value):
                    light = scale(value) > DARK if not ratio else abs(2 * float(scale(value)) - 1) > DARK
                    text = f"{value:.3g}" if ratio else compact(float(f"{value:.2g}")).replace(" ", "")
                    axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=PAPER if light else INK)
    made.suptitle(plain(f"{QUANTITIES[quantity]}, {order}: {title(study)}"), fontsize=9, x=0.02, ha="left")
    return made
