"""Values that a hypothesis strategy makes of bytes: the same for one text on every machine, with no database."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Value = TypeVar("Value")
BYTES = 4096


def drawn(strategy: SearchStrategy[Value], text: str) -> Value | None:
    """What the strategy makes of bytes that this text seeds; None if it makes nothing of them."""
    found: list[Value] = []

    # Health checks are for tests that run many examples at a time, not for one value from given bytes.
    @settings(deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(strategy)
    def collect(value: Value) -> None:
        found.append(value)

    fuzz = getattr(collect, "hypothesis").fuzz_one_input  # noqa: B009 - `given` does not type what it attaches
    fuzz(Random(text).randbytes(BYTES))
    return found[0] if found else None
