"""How values show themselves in notebooks: HTML from text that is escaped, and pictures that are drawn when asked for.

A stage may not import a later one, and the pictures are of the last. `DRAWN` says by name who draws what, and the name
is looked up when a notebook asks, so that nothing heavy is loaded before, and nothing at all where matplotlib is not
installed: there a value has no picture.
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
"""The module and the function that draw a value, by the name of its type."""


def svg(value: object) -> str | None:
    """The picture of a value as svg text; None where it cannot be drawn, as IPython expects it."""
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
    """Text with its lines and spaces as they are."""
    return f'<pre style="text-align: left">{escape(text)}</pre>'


def folded(title: str, html: str) -> str:
    """HTML that opens at a click; `html` is put in as it is."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()) -> str:
    """A table of text.

    Args:
        right: the columns of numbers, which are set to the right.
    """
    numbers = set(right)

    def cell(tag: str, k: int, text: object) -> str:
        return f'<{tag} style="text-align: {"right" if k in numbers else "left"}">{escape(str(text))}</{tag}>'

    def row(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(cell(tag, k, text) for k, text in enumerate(cells)) + "</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', head)}</thead><tbody>{body}</tbody></table>"
