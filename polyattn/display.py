"""Display of values in notebooks: HTML with escaped text, and pictures drawn on demand.

A stage may not import a later one, and the pictures belong to the last. `DRAWN` names the drawing function of each
type; it is looked up when a notebook asks, so that heavy packages are not loaded before, and not at all if matplotlib
is not installed: then a value has a text only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any

from polyattn.errors import PolyattnError

DRAWN = {
    "Spec": ("polyattn.study.pictures", "tensor_network"),
    "Plan": ("polyattn.study.pictures", "contraction_tree"),
    "Study": ("polyattn.study.pictures", "cost_curves"),
}
"""The module and the function for drawing a value, by the name of its type."""


def svg(value: object) -> str | None:
    """Return the picture of a value as svg text; None if it cannot be drawn, as IPython expects it."""
    # Subclasses are drawn as the type that they extend.
    module, function = next(DRAWN[t.__name__] for t in type(value).__mro__ if t.__name__ in DRAWN)
    try:
        figure = getattr(import_module(module), function)(value)
        return import_module(module).svg(figure, outlines=False)
    except PolyattnError:  # matplotlib is missing, or the picture would be too large
        return None


def heading(text: str) -> str:
    return f"<p><strong>{escape(text)}</strong></p>"


def note(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def block(text: str) -> str:
    """Return text in HTML with its lines and spaces as they are."""
    return f'<pre style="text-align: left">{escape(text)}</pre>'


def folded(title: str, html: str) -> str:
    """Return HTML folded under a title, opened by a click; `html` is inserted unescaped."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()) -> str:
    """Return a table of text.

    Args:
        right: the columns of numbers, aligned to the right.
    """
    numbers = set(right)

    def cell(tag: str, k: int, text: object) -> str:
        return f'<{tag} style="text-align: {"right" if k in numbers else "left"}">{escape(str(text))}</{tag}>'

    def row(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(cell(tag, k, text) for k, text in enumerate(cells)) + "</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', head)}</thead><tbody>{body}</tbody></table>"
