"""The common style of all pictures: colours, line styles, markers, and text without formulas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from polyattn.optional import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b1b1b"
PAPER = "white"
QUIET = "#6b6b6b"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d31")
"""After Okabe and Ito's palette for colour-blind readers, in an order in which neighbours differ in lightness too."""

LONGEST = 32
"""Greatest number of letters of a name in a picture."""
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


def plain(text: str) -> str:
    """Escape dollar signs, which start formulas in matplotlib, and shorten long names with three dots.

    >>> plain("t1[b] = " + "w" * 99)
    't1[b] = wwwwwwwwwwwwwwwwwwwwwwwwwwwwwww…'
    """
    return re.sub(rf"\w{{{LONGEST}}}\w+", lambda word: word[0][: LONGEST - 1] + "…", text).replace("$", r"\$")


def compact(number: float) -> str:
    """Format a count in at most three digits, with the prefix of its thousands: 1.64 G."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.6 rounds to 1000 at three digits, so it gets the next prefix.
        if number >= factor * 0.9995:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "
