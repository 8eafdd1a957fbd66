"""`plan` of equations and of code, and the test for code. Torch is imported where there is code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyattn.errors import ReadingError
from polyattn.language import Specification

if TYPE_CHECKING:
    from polyattn.algebra import Spec
    from polyattn.planning import Plan
    from polyattn.reading.reading import Reading


def plan(
    spec: Spec | str | Any,
    sizes: Mapping[str, int] | None = None,
    objective: str = "forward",
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    names: str | Mapping[Any, str] | None = None,
    **options: Any,
) -> Plan:
    """Return the cheapest known way to compute a specification, or code, at given sizes.

    Args:
        spec: a specification or its text; or a module, a function of tensors, or a reading of one.
        sizes: numbers for the sizes, with B for the batch; for code, by default the example's.
        objective: "forward", "training", "as_written", or "decoding" for one step of a causal specification; see
            `polyattn.lowering.planner.plan` for this and for `options`: `batch`, `memory_limit`, `cost`, `device`,
            `dtype`, `kernels`, `accuracy`, `order`.
        args, kwargs, names: for code, as for `polyattn.read`.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or an option is unknown or out of range.
        BudgetError: the expansion is too large, or no candidate keeps to the memory limit; says the smallest that would
            do.
        ReadingError: code cannot be read, or `args` is missing.

    >>> print(plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 10, "C": 4}).macs)
    160
    """
    from polyattn import lowering

    if not is_code(spec):
        given: Any = sizes  # None is refused by name there
        return lowering.plan(spec, given, objective, **options)
    found = as_reading(spec, args, kwargs, names)
    return lowering.plan(found.spec, {**found.numbers, **(sizes or {})}, objective, **options)


def is_code(subject: object) -> bool:
    """Return whether this is code or a reading of it: a module, a function of tensors."""
    return not isinstance(subject, Specification | str) and (callable(subject) or is_reading(subject))


def is_reading(subject: object) -> bool:
    # Before the class is imported, which needs torch, nothing is one.
    module = sys.modules.get("polyattn.reading.reading")
    return module is not None and isinstance(subject, module.Reading)


def as_reading(
    subject: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, names: str | Mapping[Any, str] | None
) -> Reading:
    """Return a reading as it is, and the reading of code.

    Raises:
        ReadingError: `args` is missing, or the code cannot be read.
    """
    if is_reading(subject):
        return subject
    check_args(subject, args)
    from polyattn.reading.reading import read

    return read(subject, () if args is None else args, kwargs, names)


def check_args(subject: object, args: object) -> None:
    if args is None:
        name = getattr(subject, "__name__", type(subject).__name__)
        raise ReadingError(
            f"`args` is missing: give an example of the arguments of {name}, such as (torch.randn(2, 5, 64),)"
        )
