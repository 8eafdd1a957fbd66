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
    """A figure as svg text, the same for the same figure, to be put into a page: without an XML head.

    Args:
        figure: what to write.
        outlines: letters as outlines, which look the same everywhere; else as text, which is smaller and can be
            searched, in whatever font the reader has.
    """
    matplotlib = need("matplotlib", "study")
    out = StringIO()
    with matplotlib.rc_context({**SAME_EVERY_TIME, "svg.fonttype": "path" if outlines else "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def check_path(path: str | Path) -> Path:
    """The path, if a figure can have such a name.

    Raises:
        PolyattnError: its suffix is another than .svg, .pdf or .png.
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
    out = BytesIO()
    with matplotlib.rc_context(SAME_EVERY_TIME):
        figure.savefig(out, format=path.suffix[1:], dpi=160, metadata=metadata)
    try:
        path.write_bytes(out.getvalue())
    except OSError as error:
        raise PolyattnError(f"the figure cannot be written to {str(path)!r}: {error.strerror}") from None
    return path
