"""The common style of all pictures: colours, line styles, markers, and text without formulas."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from polyattn.optional import need

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#1b1b1b"
PAPER = "white"
QUIET = "#6b6b6b"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d31")
"""After Okabe and Ito's palette for colour-blind readers, in an order in which neighbours differ in lightness too."""

LONGEST = 32
"""Greatest number of letters of a name in a picture."""
MOST_DECADES, FEWEST_TICKS = 6, 2
"""Greatest number of labelled decades of a logarithmic axis, and the least number of its labels."""
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def figure(width: float, height: float, layout: str = "constrained") -> Figure:
    """Return an empty figure, in inches.

    Args:
        layout: "none" for a drawing with given places, which is several times faster.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    need("matplotlib", "study")
    return need("matplotlib.figure", "study").Figure(figsize=(width, height), layout=layout, facecolor=PAPER)


def look(number: int) -> dict[str, Any]:
    """Return the colour and the marker of the layer of this number; the second round of colours has other markers."""
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": marker}


def plain(text: str) -> str:
    """Escape dollar signs, which start formulas in matplotlib, and shorten long names with three dots.

    >>> plain("t1[b] = " + "w" * 99)
    't1[b] = wwwwwwwwwwwwwwwwwwwwwwwwwwwwwww…'
    """
    return re.sub(rf"\w{{{LONGEST}}}\w+", lambda word: word[0][: LONGEST - 1] + "…", text).replace("$", r"\$")


def compact(number: float) -> str:
    """Format a number in at most three digits, with the prefix of its thousands or thousandths: 1.64 G.

    >>> compact(1.64e9), compact(2.5e-5), compact(0.0)
    ('1.64 G', '25 µ', '0 ')
    """
    prefixes = (
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
    )
    for factor, prefix in prefixes:
        # 999.6 rounds to 1000 at three digits, so it gets the next prefix.
        if number >= factor * 0.9995:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "


def log_ticks(axis: Axis, form: Callable[[float], str] = compact) -> None:
    """Label a logarithmic axis at few round numbers that do not overlap, and at three where none is round."""
    low, high = sorted(axis.get_view_interval())
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    every = max(1, -(-len(decades) // MOST_DECADES))
    for steps in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
        kept = decades[:: every if steps == (1,) else 1]
        ticks = [t for d in kept for s in steps if low <= (t := float(f"{s}e{d}")) <= high]
        if len(ticks) >= FEWEST_TICKS:
            break
    else:
        ticks = [low * (high / low) ** share for share in (0.1, 0.5, 0.9)]
    axis.set_ticks(ticks, [form(t).strip() for t in ticks])
    axis.set_minor_locator(need("matplotlib.ticker", "study").NullLocator())
