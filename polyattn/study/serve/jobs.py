"""The workers' jobs: from a request's JSON to an answer's. Texts are parsed as specifications, never run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.errors import PolyattnError, SpecError
from polyattn.study.report import compare, section
from polyattn.study.report.page import environment
from polyattn.study.report.section import OBJECTIVES

if TYPE_CHECKING:
    import jinja2

MOST_DIGITS = 15
"""Digits of a size, as on the page."""


class BadRequestError(PolyattnError, ValueError):
    """A request outside the page's protocol."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request by its "job"; errors of the library are answers too.

    A `SpecError` is answered with its reason and its place.
    """
    try:
        return JOBS[request["job"]](request)
    except SpecError as error:
        return {"error": {"reason": error.reason, "line": error.line, "column": error.column}}
    except BadRequestError as error:
        return {"bad": str(error)}
    except PolyattnError as error:
        return {"error": {"reason": str(error), "line": 0, "column": 0}}


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Check that a text is a specification."""
    Spec(text_of(request))
    return {"good": True}


def layer(request: dict[str, Any]) -> dict[str, Any]:
    """Render a specification's part of the page as HTML."""
    made = section("this layer", Spec(text_of(request)), sizes_of(request))
    return {"html": templates().get_template("section.html").render(s=made, objectives=OBJECTIVES)}


def proof(request: dict[str, Any]) -> dict[str, Any]:
    """Render the verdict against an entry of the catalogue as HTML."""
    name = request.get("against")
    if not isinstance(name, str) or name not in catalog.names():
        raise BadRequestError("there is no such entry in the catalogue")
    made = compare("this layer", Spec(text_of(request)), name, catalog.get(name))
    return {"status": made.status, "html": templates().get_template("comparison.html").render(c=made)}


JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"check": check, "layer": layer, "proof": proof}


def text_of(request: dict[str, Any]) -> str:
    text = request.get("text")
    if not isinstance(text, str):
        raise BadRequestError("a request has a text")
    return text


def sizes_of(request: dict[str, Any]) -> dict[str, int]:
    """Read sizes, which are texts of digits: browsers round JSON's numbers."""
    sizes = request.get("sizes", {})
    if not isinstance(sizes, dict):
        raise BadRequestError("sizes are an object")
    found = {}
    for name, number in sizes.items():
        # `isdigit` alone accepts digits of other scripts and superscripts, which `int` may refuse.
        if not isinstance(number, str) or not number.isascii() or not number.isdigit() or len(number) > MOST_DIGITS:
            raise BadRequestError(f"a size is a text of at most {MOST_DIGITS} digits")
        found[name] = int(number)
    return found


@cache
def templates() -> jinja2.Environment:
    """Return the report's templates and this folder's."""
    import jinja2

    loaders = [jinja2.PackageLoader(f"polyattn.study.{part}") for part in ("report", "serve")]
    return environment().overlay(loader=jinja2.ChoiceLoader(loaders))
