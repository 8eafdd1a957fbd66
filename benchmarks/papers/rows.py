"""The papers' tables as values, from `papers.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One network in a paper's table.

    Attributes:
        label: label as printed here.
        build: the name of a builder in `polyattn.vision`.
        words: keyword arguments of the builder.
        params: printed millions of parameters; None if the paper prints none.
        macs: printed billions of multiply-accumulates (the papers call them GFLOPs).
        delta: label of the reference row, if the printed figures are differences.
        accuracy: printed accuracies, in the order of the table's columns: the paper's, quoted.
        why: cause of a difference to the printed figures.
    """

    label: str
    build: str
    words: Mapping[str, Any] = field(default_factory=dict)
    params: Decimal | None = None
    macs: Decimal | None = None
    delta: str | None = None
    accuracy: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A paper's table.

    Attributes:
        paper: "bat" or "poly_nl"; source: its title.
        number: the table's number there.
        title: subject of the comparison.
        input: input shape for counting multiply-accumulates, without the batch; None if they are not counted.
        accuracy: the names of the quoted accuracies.
        rows: the networks.
        note: note on the whole table.
    """

    paper: str
    source: str
    number: str
    title: str
    input: tuple[int, ...] | None
    accuracy: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@cache
def paper_tables() -> tuple[Table, ...]:
    """Return all tables of both papers with sizes, costs or accuracies of networks.

    >>> [table.number for table in paper_tables() if table.paper == "poly_nl"]
    ['1', '2', '3a', '3b']
    """
    facts = tomllib.loads(Path(__file__).with_name("papers.toml").read_text(encoding="utf-8"))
    return tuple(
        Table(
            paper=table["paper"],
            source=facts[table["paper"]]["title"],
            number=table["number"],
            title=table["title"],
            input=tuple(table["input"]) if "input" in table else None,
            accuracy=tuple(table["accuracy"]),
            rows=tuple(_row(row) for row in table["rows"]),
            note=table.get("note", ""),
        )
        for table in facts["table"]
    )


def _row(facts: dict[str, Any]) -> Row:
    words: dict[str, Any] = dict(facts, accuracy=tuple(facts["accuracy"]))
    for name in ("params", "macs"):
        if name in facts:
            # Decimals keep the printed number of digits, which decides on rounding.
            words[name] = Decimal(facts[name])
    return Row(**words)
