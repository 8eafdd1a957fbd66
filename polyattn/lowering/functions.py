"""Generated functions by name, transparent to `torch.compile(fullgraph=True)`.

A compiler cannot trace the planner, and need not: for given shapes its result is a constant. So a planning function,
marked with `constant_result`, returns the name of the generated function; `FUNCTIONS` has it as an attribute, which the
compiler reads and inlines. New functions never invalidate compiled code of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch.fx.experimental import symbolic_shapes

FUNCTIONS = SimpleNamespace()
"""The generated functions."""

_numbers = count()

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_result(function: Function) -> Function:
    """Mark a function whose result is constant to a compiler, as `torch.compiler.assume_constant_result` does.

    Torch's function imports the compiler to leave this mark, a third of the time of `import polyattn`.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def keep(function: Callable[..., Any]) -> str:
    """Store a generated function for the life of the process; return its name in `FUNCTIONS`."""
    # `next` on a counter is atomic in CPython, so threads cannot get one name twice.
    name = f"f{next(_numbers)}"
    setattr(FUNCTIONS, name, function)
    return name


@cache
def named(function: Callable[..., Any]) -> str:
    """Store a function of the user's own; return its name in `FUNCTIONS`, the same in each call."""
    return keep(function)


_has_static_value = getattr(symbolic_shapes, "has_static_value", None)  # not in every torch that is supported


def is_static(size: Any) -> bool:
    """Whether a size is a number, and not symbolic to a compiler."""
    if torch.compiler.is_compiling():
        return _has_static_value is not None and _has_static_value(size)
    return type(size) is int


def is_traced() -> bool:
    """Whether `torch.jit.trace`, or the ONNX exporter that rests on it, follows this call."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


@contextmanager
def untraced() -> Iterator[None]:
    """Suspend `torch.jit.trace`, so that lengths are numbers and no operation is recorded."""
    native: Any = torch._C  # its types leave the setter out
    state = native._get_tracing_state()
    native._set_tracing_state(None)
    try:
        yield
    finally:
        native._set_tracing_state(state)
