"""Figures as files and as text."""

from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from polyattn.errors import PolyattnError
from polyattn.optional import need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".pdf")
SAME_EVERY_TIME = {"svg.hashsalt": "polyattn"}


def svg(figure: Figure, *, outlines: bool = True) -> str:
    """Return a figure as SVG text for inclusion in a page: deterministic, without an XML head.

    Args:
        figure: the figure.
        outlines: whether letters are outlines, which look the same everywhere; else they are text, smaller and
            searchable, in the reader's font.
    """
    matplotlib = need("matplotlib", "study")
    out = StringIO()
    with matplotlib.rc_context({**SAME_EVERY_TIME, "svg.fonttype": "path" if outlines else "none"}):
        # The date would make every file different.
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def check_path(path: str | Path) -> Path:
    """Check that the name of a figure's file has a known suffix; return it as a path.

    Raises:
        PolyattnError: its suffix is not .svg, .pdf or .png.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise PolyattnError(f"a figure is saved as {', '.join(SUFFIXES)}, not as {path.name!r}")
    return path


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as .svg, .pdf or .png, the same bytes for the same figure.

    Raises:
        PolyattnError: another suffix, or the file cannot be written.
    """
    path = check_path(path)
    matplotlib = need("matplotlib", "study")
    metadata = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}[path.suffix]
    # Drawn in memory first: a failure leaves no half-written file.
    out = BytesIO()
    with matplotlib.rc_context(SAME_EVERY_TIME):
        figure.savefig(out, format=path.suffix[1:], dpi=160, metadata=metadata)
    try:
        path.write_bytes(out.getvalue())
    except OSError as error:
        raise PolyattnError(f"the figure cannot be written to {str(path)!r}: {error.strerror}") from None
    return path
