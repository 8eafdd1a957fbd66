"""Packages that only some functions need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

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
        raise MissingPackageError(f"this needs {error.name}: pip install 'polyattn[{extra}]'") from error
