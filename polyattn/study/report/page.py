"""The page: sections in templates, with style and script inline."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyattn.algebra import Spec
from polyattn.errors import PolyattnError, SizeError
from polyattn.optional import need
from polyattn.study.report.comparison import compared
from polyattn.study.report.measurements import Measurements, measure
from polyattn.study.report.section import OBJECTIVES, section

if TYPE_CHECKING:
    import jinja2


def report(
    specs: Mapping[str, Spec],
    sizes: Mapping[str, int] | None = None,
    *,
    given: Sequence[str] = (),
    measurements: Sequence[Measurements] = (),
    measured: bool = False,
    title: str = "",
) -> str:
    """Return one self-contained HTML page about some specifications: equations, proofs, plans, code and curves.

    The page sends no requests. Its sliders compute costs from the symbolic formulas, exactly.

    Args:
        specs: specifications by their names on the page.
        sizes: numbers for the plans and the initial view, with B for the batch; the usual ones by default.
        given: equations taken for granted by the proofs; see `polyattn.prove`.
        measurements: tables to show.
        measured: whether to time the author's and the planned order here, too.
        title: title of the page.

    Raises:
        SizeError: the sizes contradict each other, or all specifications lack one of them.
        MissingPackageError: the extra `report` is not installed.
    """
    if not specs:
        raise PolyattnError("a report needs one specification at least")
    specs = {name: getattr(spec, "spec", spec) for name, spec in specs.items()}
    sizes = dict(sizes or {})
    check_known(specs, sizes)
    # A missing package is reported before the proofs, which may take long.
    environment()
    verdicts = compared(specs, given)
    sections = [
        section(name, spec, sizes, number=number, comparisons=verdicts[name])
        for number, (name, spec) in enumerate(specs.items())
    ]
    if measured:
        orders = {s.name: [("as written", s.orders["forward"][0].plan), ("planned", s.plan)] for s in sections}
        measurements = [*measurements, measure(orders)]
    return render("page.html", sections=sections, measurements=measurements, title=title or "Attention layers compared")


def write_report(path: Path, specs: Mapping[str, Spec], sizes: Mapping[str, int] | None = None, **options: Any) -> None:
    """Write the page of `report` for the same arguments.

    Raises:
        PolyattnError: the file cannot be written; a missing folder is reported before the page is made.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise PolyattnError(f"the report cannot be written to {str(path)!r}: there is no such folder, or it is one")
    page = report(specs, sizes, **options)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PolyattnError(f"the report cannot be written to {str(path)!r}: {error.strerror}") from None


def check_known(specs: Mapping[str, Spec], sizes: Mapping[str, int]) -> None:
    """Raise SizeError for a size unknown to all specifications."""
    known = {"B", *(n for spec in specs.values() for n in spec.sizes.names)}
    if unknown := [n for n in sizes if n not in known]:
        raise SizeError(f"no specification has a size {unknown[0]!r}; they have {', '.join(sorted(known))}")


@cache
def environment() -> jinja2.Environment:
    """Return the templates, which escape all values."""
    jinja2 = need("jinja2", "report")
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("polyattn.study.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shape"] = lambda shape: "×".join(map(str, shape)) or "scalar"
    made.filters["anchor"] = lambda name: re.sub("[^A-Za-z0-9_]+", "-", name)
    made.filters["grouped"] = lambda number: f"{number:,}"
    return made


def render(
    template: str,
    *,
    styles: Sequence[str] = ("page.css",),
    scripts: Sequence[str] = ("theme.js", "page.js"),
    **values: Any,
) -> str:
    """Render a template of this folder with its style sheets and scripts, and with values, which are escaped."""
    style, script = ("".join(map(asset, names)) for names in (styles, scripts))
    # Style and script are allowed by their hashes, so injected ones would not run.
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    common = {
        "style": style,
        "script": script,
        "policy": policy,
        "objectives": OBJECTIVES,
        "version": version("polyattn"),
    }
    return environment().get_template(template).render(**common, **values)


@cache
def asset(name: str) -> str:
    """Read a style sheet or a script of this folder."""
    return files("polyattn.study.report").joinpath("static", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
