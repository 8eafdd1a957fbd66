"""Generated functions by name, in a way that `torch.compile(fullgraph=True)` sees through.

A compiler cannot trace the planner, and need not: for given shapes its result is a constant. So a planning function,
marked with `torch.compiler.assume_constant_result`, returns the name of what it made, and the generated function of
that name is an attribute of `FUNCTIONS`, which the compiler reads and inlines. New functions never invalidate compiled
code that uses others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

FUNCTIONS = SimpleNamespace()
"""The generated functions."""

_numbers = count()


def keep(function: Callable[..., Any]) -> str:
    """Keep a generated function for the life of the process; returns its name in `FUNCTIONS`."""
    name = f"f{next(_numbers)}"
    setattr(FUNCTIONS, name, function)
    return name
