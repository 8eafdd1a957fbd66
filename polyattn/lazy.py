"""Names of a package that are imported on first use, so that a process pays only for the libraries that it calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def attach(package: str, origins: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its `__name__`.
        origins: the module of each public name, relative to the package; a name that is its own module stands for
            that module. No other name may be the name of a module of the package, since importing the module would
            put it in the name's place.
    """

    def getattribute(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{origins[name]}")
        value = module if origins[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def directory() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins})

    return getattribute, directory
