"""Packages that only some functions need."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from urllib.parse import unquote, urlparse

from polyattn.errors import MissingPackageError


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises:
        MissingPackageError: the package is not installed; says with which extra it comes.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingPackageError(f"this needs {error.name}: {command(extra)}") from error


def command(extra: str) -> str:
    """Return the command that installs an extra from where polyattn itself was installed: a clone, or by its name."""
    return f"pip install {_source().format(f'[{extra}]')}"


@cache
def _source() -> str:
    try:
        direct = json.loads(distribution("polyattn").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        direct = {}
    url = urlparse(direct.get("url", ""))
    if url.scheme != "file":
        return "'polyattn{}'"
    path = unquote(url.path).replace("{", "{{").replace("}", "}}")
    return ("-e " if direct.get("dir_info", {}).get("editable") else "") + f"'{path}{{}}'"
