"""The atlas as one page: a picture to pan, zoom and search; the equation and costs of layers, the proofs of edges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from polyattn.errors import PolyattnError
from polyattn.study.atlas.build import Atlas
from polyattn.study.atlas.costs import Costs, costs
from polyattn.study.atlas.curves import curve
from polyattn.study.atlas.layout import layout
from polyattn.study.report.page import environment, render


def page(atlas: Atlas, *, counted: Mapping[str, Costs | None] | None = None) -> str:
    """Return one self-contained HTML page of an atlas. It sends no requests.

    Args:
        atlas: from `build`.
        counted: costs by the names of layers; computed by default.

    Raises:
        MissingPackageError: the extra `report` is not installed.
    """
    environment()  # a missing package is reported before the costs, which take a while
    known = {name: costs(layer.spec) for name, layer in atlas.layers.items()} if counted is None else counted
    edges = atlas.edges
    values = {
        "layers": atlas.layers,
        "edges": edges,
        "classes": {name: members for members in atlas.classes for name in members},
        "outward": {n: [(k, e) for k, e in enumerate(edges) if e.first == n] for n in atlas.layers},
        "inward": {n: [(k, e) for k, e in enumerate(edges) if e.second == n] for n in atlas.layers},
        "costs": known,
        "curves": {name: curve(found) for name, found in known.items() if found and found.points},
        "picture": layout(atlas),
        "pairs": len(atlas.layers) * (len(atlas.layers) - 1),
        "proved": len(atlas.found),
    }
    return render("atlas.html", styles=("page.css", "atlas.css"), scripts=("theme.js", "atlas.js"), **values)


def write_page(atlas: Atlas, path: Path, *, counted: Mapping[str, Costs | None] | None = None) -> None:
    """Write the page of an atlas.

    Raises:
        PolyattnError: the file cannot be written.
        MissingPackageError: the extra `report` is not installed.
    """
    text = page(atlas, counted=counted)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PolyattnError(f"cannot write to {str(path)!r}: {error.strerror}; name another file") from None
