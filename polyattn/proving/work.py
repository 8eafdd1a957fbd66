"""The work of a question, counted in steps that are the same on every machine: no verdict depends on a clock.

A step is about a microsecond of one core of 2024. The functions that can take long charge what they are about to do;
where no meter runs, charging does nothing. Values that may be cached are charged before they are looked up, so that
the count does not depend on earlier questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_PROOF = 8_000_000
"""The steps of a proof with its certificate."""

MAX_CONFIRMING = 4_000_000
"""The steps to check the points at which a search finds a difference."""

PER_MONOMIAL = 150
"""The steps of a search for each monomial that it may evaluate: one over arrays of a thousand entries or so."""


GRAPH = 40
"""The steps to label the graph of a term, for each factor and index in it."""


class SpentError(Exception):
    """A meter has counted all the steps that it allows. It never leaves the prover."""


class Meter:
    """A number of steps that may be spent, in one go or in several."""

    def __init__(self, steps: int):
        self.steps = self.left = steps

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is charged inside; a meter that runs outside of this one counts it too."""
        token = _meters.set((*_meters.get(), self))
        try:
            yield
        finally:
            _meters.reset(token)


_meters: ContextVar[tuple[Meter, ...]] = ContextVar("meters", default=())


def charge(steps: int) -> None:
    """Count steps.

    Raises:
        SpentError: there are not so many left.
    """
    for meter in _meters.get():
        meter.left -= steps
        if meter.left < 0:
            raise SpentError
