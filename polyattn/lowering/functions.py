"""Generated functions by name, in a way that `torch.compile(fullgraph=True)` sees through.

A compiler cannot trace the planner, and need not: for given shapes its result is a constant. So a planning function,
marked with `constant_result`, returns the name of what it made, and the generated function of
that name is an attribute of `FUNCTIONS`, which the compiler reads and inlines. New functions never invalidate compiled
code that uses others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

FUNCTIONS = SimpleNamespace()
"""The generated functions."""

_numbers = count()

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_result(function: Function) -> Function:
    """Mark a function whose result a compiler may take for a constant, as `torch.compiler.assume_constant_result` does.

    That one imports the compiler to leave this mark, which would be a third of the time of `import polyattn`.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def keep(function: Callable[..., Any]) -> str:
    """Keep a generated function for the life of the process; returns its name in `FUNCTIONS`."""
    name = f"f{next(_numbers)}"
    setattr(FUNCTIONS, name, function)
    return name
