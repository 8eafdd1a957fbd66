"""The work of a question, counted in machine-independent steps: no verdict depends on a clock.

A step is about a microsecond of one core of 2024. Functions with long running times charge their work in advance;
without a running meter, charging does nothing. Cached values are charged before they are looked up, so that the
count does not depend on earlier questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_PROOF = 8_000_000
"""The steps of a proof with its certificate."""

MAX_CONFIRMING = 4_000_000
"""The steps to check the points of a search."""

PER_MONOMIAL = 150
"""The steps of a search for each monomial to evaluate: one over arrays of a thousand entries or so."""


GRAPH = 40
"""The steps to label the graph of a term, for each factor and index in it."""


class SpentError(Exception):
    """A meter has counted all of its steps. It never leaves the prover."""


class Meter:
    """A number of steps to spend, in one go or in several."""

    def __init__(self, steps: int):
        self.steps = self.left = steps

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the steps charged inside; a meter running outside of this one counts them too."""
        token = _meters.set((*_meters.get(), self))
        try:
            yield
        finally:
            _meters.reset(token)


# A context variable, so that questions in other threads are not charged.
_meters: ContextVar[tuple[Meter, ...]] = ContextVar("meters", default=())


def charge(steps: int) -> None:
    """Count steps.

    Raises:
        SpentError: too few steps are left.
    """
    for meter in _meters.get():
        meter.left -= steps
        if meter.left < 0:
            raise SpentError
