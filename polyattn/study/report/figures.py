"""matplotlib figures as SVG elements that stand in a page: without scripts, style attributes or names in common."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
_KEPT = {"svg", "g", "path", "text", "tspan", "defs", "use", "clipPath", "rect", "circle", "line", "polygon"}
_INK = {"#000000": "currentColor", "#ffffff": "var(--paper)", "black": "currentColor", "white": "var(--paper)"}
"""Black and white follow the page, which is dark at night."""


def svg(figure: Figure, prefix: str, label: str) -> str:
    """A figure as one `svg` element.

    Args:
        figure: it is closed afterwards.
        prefix: put before every id, so that several figures can stand in one page.
        label: what a reader who does not see it is told.
    """
    import matplotlib
    from matplotlib import pyplot

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return standalone(text.getvalue(), prefix, label)


def standalone(text: str, prefix: str, label: str) -> str:
    """The SVG text of a drawing as an element of a page under a strict content security policy."""
    root = ET.fromstring(text)
    for element in list(root.iter()):
        for child in [c for c in element if _name(c) not in _KEPT]:
            element.remove(child)
        element.tag = _name(element)
        element.attrib = dict(_attributes(element, prefix))
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None if element.tag != "tspan" else element.tail
    width, height = root.attrib.pop("width", ""), root.attrib.pop("height", "")
    if "viewBox" not in root.attrib:
        root.set("viewBox", f"0 0 {float(width.rstrip('pt'))} {float(height.rstrip('pt'))}")
    root.attrib |= {"role": "img", "aria-label": label, "class": "picture"}
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _attributes(element: ET.Element, prefix: str) -> Iterator[tuple[str, str]]:
    found = {name: value for name, value in element.attrib.items() if name != "style"}
    for part in element.get("style", "").split(";"):
        name, colon, value = part.partition(":")
        if colon:
            found |= _font(value.strip()) if name.strip() == "font" else {name.strip(): value.strip()}
    for name, value in found.items():
        name, value = ("href" if name == LINK else name), value.strip()
        if name == "id":
            yield name, f"{prefix}-{value}"
        elif name == "href":
            if value.startswith("#"):
                yield name, f"#{prefix}-{value[1:]}"
        elif not name.startswith(("on", "{", "xml")):
            value = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", value)
            yield name, _INK.get(value, value)


def _font(value: str) -> dict[str, str]:
    """The shorthand `font` as attributes, the family aside: a page has its own."""
    size = re.search(r"([\d.]+)px", value)
    weight = re.search(r"\b(bold|[1-9]00)\b", value)
    style = re.search(r"\b(italic|oblique)\b", value)
    found = {"font-size": size} | {"font-weight": weight} | {"font-style": style}
    return {name: match[1] for name, match in found.items() if match}
