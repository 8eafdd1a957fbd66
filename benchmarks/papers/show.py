"""Printing the compared tables, as text for a screen or as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table as Printed

from polyattn.errors import PolyattnError

from .compare import BILLION, MILLION, Compared, compare
from .complexity import complexity
from .rows import Table, paper_tables

PAPERS = {"bat": "BAT", "poly_nl": "Poly-NL"}

EXPLANATION = (
    "params: millions of parameters; the counted ones are rounded as the printed ones, and = says that they agree. "
    "GMACs: billions of multiply-accumulates for one image or clip, which the papers call GFLOPs. [bold]as run[/bold]: "
    "matrix products and convolutions as polyattn runs them. [bold]as theirs[/bold]: by the BAT paper's rules, which "
    "also count biases, four operations for each element of a batch norm and two for each multiply-accumulate of the "
    "classifier and of the non-local block's products, but none of the block-based P X Q; off: from the printed "
    "figure. Accuracies are the papers', quoted: none was measured here."
)
COMPLEXITY = "complexity of one block, with inner channels of C / 2"
COMPLEXITY_WHY = (
    "The formulas leave out biases and batch norms (all params has them). For P X Q they count matrices of full size, "
    "C H W (H + W) / 2; here the blocks' matrices are multiplied, which are s x s."
)


def print_tables(
    console: Console, *, as_json: bool = False, paper: str | None = None, number: str | None = None
) -> None:
    """Print the tables one by one as their networks are counted, or all of them as JSON.

    Args:
        console: target of the output.
        as_json: whether to print one JSON list of `record`s.
        paper: "bat" or "poly_nl", to print its tables only.
        number: number of a table, to print tables of that number only.

    Raises:
        PolyattnError: `paper` or `number` is unknown.
    """
    every = paper_tables()
    if paper not in (None, *PAPERS):
        raise PolyattnError(f"unknown `paper` {paper!r}; expected {' or '.join(PAPERS)}")
    chosen = [t for t in every if paper in (None, t.paper) and number in (None, t.number)]
    # The BAT paper's Table 1 has formulas instead of networks, and a printout of its own.
    formulas = paper in (None, "bat") and number in (None, "1")
    if not chosen and not formulas:
        known = ", ".join(["bat 1", *(f"{t.paper} {t.number}" for t in every)])
        raise PolyattnError(f"unknown `table` {number!r} of {paper or 'both papers'}; expected one of {known}")
    if as_json:
        blocks = [record_complexity()] if formulas else []
        # JSON is one list, so it has to wait for all counts; text tables appear one by one.
        console.print_json(data=[*blocks, *(record(table, rows) for table, rows in compare(chosen))])
        return
    console.print(EXPLANATION, highlight=False)
    console.print()
    if formulas:
        show_complexity(console)
    for table, rows in compare(chosen):
        show(table, rows, console)


def show(table: Table, rows: list[Compared], console: Console) -> None:
    """Print one table, and under it the causes of differences."""
    printed = any(row.row.params is not None or row.row.macs is not None for row in rows)
    columns = ["network", *(["params"] if printed else []), "counted"]
    if table.input is not None:
        columns += ["GMACs", "as theirs", "off", "as run"] if printed else ["GMACs as run"]
    view = Printed(
        *columns,
        *(f"{name} (theirs)" for name in table.accuracy),
        title=f"{PAPERS[table.paper]}, Table {table.number}: {table.title}",
        title_justify="left",
    )
    for row in rows:
        view.add_row(*_cells(row, printed, table.input is not None), *row.row.accuracy)
    _print_whole(console, view, words=1)
    for row in rows:
        if row.row.why:
            console.print(f"  {row.row.label}: {row.row.why}", markup=False, highlight=False)
    if table.note:
        console.print(f"  {table.note}", markup=False, highlight=False)
    console.print()


def show_complexity(console: Console) -> None:
    """Print the BAT paper's Table 1 beside the blocks here."""
    columns = ("block", "map", "params", "weights", "all params", "MMACs", "as run", "off")
    view = Printed(*columns, title=f"BAT, Table 1: {COMPLEXITY}", title_justify="left")
    found = list(complexity())
    for one in found:
        same = "=" if one.weights == one.params else "≠"
        view.add_row(
            one.block, f"{one.channels} x {one.side} x {one.side}", f"{one.params:,}", f"{one.weights:,}{same}",
            f"{one.parameters:,}", f"{one.macs / MILLION:.1f}", f"{one.macs_here / MILLION:.1f}",
            f"{100 * (one.macs_here / one.macs - 1):+.1f} %",
        )  # fmt: skip
    _print_whole(console, view, words=2)
    for one in {one.block: one for one in found}.values():
        console.print(
            f"  {one.block}: params {one.params_formula}; MACs {one.macs_formula}", markup=False, highlight=False
        )
    console.print(f"  {COMPLEXITY_WHY}\n", markup=False, highlight=False)


def _print_whole(console: Console, view: Printed, words: int) -> None:
    """Print a table whose first `words` columns may break between words, and whose numbers may not.

    On a screen too narrow for that, lines are longer than the screen.
    """
    needed = 1
    for number, column in enumerate(view.columns):
        cells = [str(cell) for cell in column.cells]
        whole = [part for cell in cells for part in cell.split()] if number < words else cells
        # The longest unbreakable part is the least width at which no number is cut.
        column.min_width = max(len(part) for part in (*whole, *str(column.header).split()))
        column.justify = "left" if number < words else "right"
        needed += column.min_width + 3
    console.print(view, width=max(console.width, needed), crop=False)


def record_complexity() -> dict[str, Any]:
    """Return the BAT paper's Table 1 as JSON-able values."""
    rows = [{name: str(v) if name.endswith("formula") else v for name, v in vars(one).items()} for one in complexity()]
    paper = next(table.source for table in paper_tables() if table.paper == "bat")
    return {"paper": paper, "table": "1", "title": COMPLEXITY, "note": COMPLEXITY_WHY, "rows": rows}


def record(table: Table, rows: list[Compared]) -> dict[str, Any]:
    """Return one table as JSON-able values; counted figures are whole numbers."""
    return {
        "paper": table.source,
        "table": table.number,
        "title": table.title,
        "input": table.input,
        "note": table.note,
        "rows": [
            {
                "network": row.row.label,
                "build": row.row.build,
                "words": dict(row.row.words),
                "difference_to": row.row.delta,
                "printed_params_millions": _text(row.row.params),
                "params": row.counted.parameters,
                "params_agree": row.params_agree,
                "printed_gmacs": _text(row.row.macs),
                "macs_by_the_papers_rules": row.counted.by_the_papers_rules,
                "macs_agree": row.macs_agree,
                "macs_off": row.macs_off,
                "macs_as_run_off": row.macs_here_off,
                "macs_as_run": row.counted.macs,
                "why": row.row.why,
                "printed_accuracy": dict(zip(table.accuracy, row.row.accuracy, strict=True)),
            }
            for row in rows
        ],
    }


def _cells(row: Compared, printed: bool, macs: bool) -> list[str]:
    sign = "+" if row.row.delta else ""
    same = " =" if row.params_agree else ("" if row.params_agree is None else " ≠")
    cells = [row.row.label]
    if printed:
        cells.append("" if row.row.params is None else f"{sign}{row.row.params}")
    cells.append(f"{sign}{row.params}{same}")
    if not macs:
        return cells
    run = "" if row.counted.macs is None else f"{sign}{row.counted.macs / BILLION:.3f}"
    if not printed:
        return [*cells, run]
    theirs = row.counted.by_the_papers_rules
    return [
        *cells,
        "" if row.row.macs is None else f"{sign}{row.row.macs}",
        "" if theirs is None else f"{sign}{theirs / BILLION:.3f}",
        "=" if row.macs_agree else "" if row.macs_off is None else f"{100 * row.macs_off:+.2f} %",
        run,
    ]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
