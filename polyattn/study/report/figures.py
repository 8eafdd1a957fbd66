"""matplotlib figures as SVG elements of a page: without scripts, style attributes or common ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyattn.errors import BudgetError, MissingPackageError
from polyattn.study import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
_KEPT = {"svg", "g", "path", "text", "tspan", "defs", "use", "clipPath", "rect", "circle", "line", "polygon"}
_INKS = {"#1b1b1b": "currentColor", "#000000": "currentColor", "#ffffff": "var(--paper)", "#eeeeee": "var(--panel)"}
_INKS |= {"#6b6b6b": "var(--soft)", "white": "var(--paper)", "black": "currentColor"}
"""Ink, paper and greys follow the page, which is dark at night; colours are visible on both."""


@dataclass(frozen=True)
class Picture:
    """A drawing as an SVG element, or the reason for its absence."""

    svg: str = ""
    missing: str = ""


def picture(draw: Callable[[], Figure], prefix: str, label: str, *, scrolls: bool = False) -> Picture:
    """Draw a figure of `polyattn.study.pictures` as an SVG element.

    Args:
        prefix: prefix of every id, so that several drawings fit into one page.
        label: text for readers who do not see it.
        scrolls: whether it keeps its own size and scrolls; else it is as wide as the page.
    """
    try:
        text = pictures.svg(draw(), outlines=False)
    except (BudgetError, MissingPackageError) as error:
        return Picture(missing=str(error))
    return Picture(standalone(text, prefix, label, scrolls=scrolls))


def standalone(text: str, prefix: str, label: str, *, scrolls: bool = False) -> str:
    """Rewrite the SVG text of a drawing as an element of a page under a strict content security policy."""
    root = ET.fromstring(text)
    # A list, since the loop removes children of the tree it walks.
    for element in list(root.iter()):
        for child in [c for c in element if _name(c) not in _KEPT]:
            element.remove(child)
        element.tag = _name(element)
        element.attrib = dict(_attributes(element, prefix))
        # White space between elements is matplotlib's, and would only make the page larger.
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None if element.tag != "tspan" else element.tail
    for name in ("width", "height"):
        points = root.attrib.pop(name, "")
        if scrolls:
            root.set(name, points)
    root.attrib |= {"role": "img", "aria-label": label, "class": "picture own-size" if scrolls else "picture"}
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _attributes(element: ET.Element, prefix: str) -> Iterator[tuple[str, str]]:
    found = {name: value for name, value in element.attrib.items() if name != "style"}
    # The policy forbids style attributes, so their parts become attributes of their own.
    for part in element.get("style", "").split(";"):
        name, colon, value = part.partition(":")
        if colon:
            found |= _font(value.strip()) if name.strip() == "font" else {name.strip(): value.strip()}
    for name, value in found.items():
        name, value = ("href" if name == LINK else name), value.strip()
        if name == "id":
            yield name, f"{prefix}-{value}"
        elif name == "href":
            # References outside the drawing are dropped, and with them requests over the network.
            if value.startswith("#"):
                yield name, f"#{prefix}-{value[1:]}"
        # Event handlers and foreign namespaces are not part of a drawing.
        elif not name.startswith(("on", "{", "xml")):
            value = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", value)
            yield name, _INKS.get(value, value)


def _font(value: str) -> dict[str, str]:
    """Split the shorthand `font` into attributes, without the family: a page has its own."""
    size = re.search(r"([\d.]+)px", value)
    weight = re.search(r"\b(bold|[1-9]00)\b", value)
    style = re.search(r"\b(italic|oblique)\b", value)
    found = {"font-size": size} | {"font-weight": weight} | {"font-style": style}
    return {name: match[1] for name, match in found.items() if match}
