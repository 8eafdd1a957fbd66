"""Comparison of the papers' tables with the counts of this library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from .count import Count, count
from .rows import Row, Table, paper_tables

MILLION, BILLION = 10**6, 10**9


@dataclass(frozen=True)
class Compared:
    """A row of a paper's table and the same network counted here.

    Attributes:
        row: row of the paper's table.
        counted: counts of the network here; differences if the row has differences.
    """

    row: Row
    counted: Count

    @property
    def params(self) -> Decimal:
        """Return the counted millions of parameters, rounded to the printed digits (or to two)."""
        return _rounded(self.counted.parameters, MILLION, self.row.params)

    @property
    def params_agree(self) -> bool | None:
        """Return whether the parameters agree with the printed ones to the last digit; None without printed ones.

        Differences may be off by one in the last digit, because the paper subtracts rounded figures.
        """
        if self.row.params is None:
            return None
        off = abs(self.params - self.row.params)
        return off <= (_step(self.row.params) if self.row.delta else 0)

    @property
    def macs_agree(self) -> bool | None:
        """Return whether the multiply-accumulates by the paper's rules, rounded, are the printed ones."""
        counted, printed = self.counted.by_the_papers_rules, self.row.macs
        return None if counted is None or printed is None else _rounded(counted, BILLION, printed) == printed

    @property
    def macs_off(self) -> float | None:
        """Return the relative deviation of the multiply-accumulates by the paper's rules from the printed ones."""
        return _relative(self.counted.by_the_papers_rules, self.row.macs)

    @property
    def macs_here_off(self) -> float | None:
        """Return the relative deviation of the multiply-accumulates as run here from the printed ones."""
        return _relative(self.counted.macs, self.row.macs)


def compare(tables: Iterable[Table] | None = None) -> Iterator[tuple[Table, list[Compared]]]:
    """Yield each table with its rows compared, as soon as they are counted."""
    for table in paper_tables() if tables is None else tables:
        yield table, [_compared(table, row) for row in table.rows]


def _compared(table: Table, row: Row) -> Compared:
    counted = _count(row, table.input)
    if row.delta is not None:
        base = next(other for other in table.rows if other.label == row.delta)
        counted = counted.minus(_count(base, table.input))
    return Compared(row, counted)


def _count(row: Row, input: tuple[int, ...] | None) -> Count:
    # Dictionaries are unhashable; their text is the cache key, and literal_eval restores it.
    return _counted(row.build, repr(dict(row.words)), input)


@cache
def _counted(build: str, words: str, input: tuple[int, ...] | None) -> Count:
    """Count a network once for all tables with it."""
    from ast import literal_eval

    return count(build, literal_eval(words), input)


def _rounded(number: int, unit: int, printed: Decimal | None) -> Decimal:
    return (Decimal(number) / unit).quantize(Decimal("0.01") if printed is None else _step(printed))


def _step(printed: Decimal) -> Decimal:
    """Return one unit in the last printed digit."""
    return Decimal(1).scaleb(int(printed.as_tuple().exponent))


def _relative(counted: int | None, printed: Decimal | None) -> float | None:
    return None if counted is None or printed is None else float(Decimal(counted) / BILLION / printed - 1)
