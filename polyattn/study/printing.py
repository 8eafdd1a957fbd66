"""Studies as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyattn.study.study import Case, Study

HEADS = {
    "macs": "MACs",
    "macs_as_run": "MACs as run",
    "traffic_bytes": "bytes moved",
    "peak_bytes": "peak bytes",
    "kept_bytes": "kept bytes",
    "flops_per_byte": "FLOPs/byte",
    "predicted_seconds": "predicted s",
    "measured_seconds": "measured s",
}


def cells(study: Study) -> list[list[str]]:
    """Return the table's head and rows as text, without columns of constant sizes."""
    rows = study.rows()
    names = ["layer", "order", *study.changing, *(q for q in (*HEADS, "parameters") if q in rows[0])]
    # One forward pass keeps nothing, so the column would be zeros.
    if study.objective != "training":
        names.remove("kept_bytes")
    return [[HEADS.get(n, n) for n in names], *([cell(r[n]) for n in names] for r in rows)]


def cell(entry: object) -> str:
    if isinstance(entry, float):
        return f"{entry:.3g}"
    return f"{entry:,}" if isinstance(entry, int) else str(entry)


def text(study: Study) -> str:
    """Format the study as a table, numbers to the right."""
    rows = cells(study)
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if k < 2 else c.rjust(w) for k, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip()
        for r in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join([title(study), *lines])


def streamed(case: Case, head: bool) -> str:
    """Format one case as soon as it is counted, with fixed widths; the head of the table above the first."""
    names = ["macs", "macs_as_run", "traffic_bytes", "peak_bytes", "predicted_seconds"]
    names += ["measured_seconds"] if case.measured_seconds is not None else []
    point = dict(case.point)
    entries = [cell(v) for v in (*point.values(), *(getattr(case, n) for n in names))]
    heads = [*point, *(HEADS[n] for n in names)]

    def line(words: list[str], numbers: list[str]) -> str:
        widths = [max(WIDTH if h not in point else 8, len(h)) for h in heads]
        return "  ".join(
            [*(w.ljust(WIDTH) for w in words), *(n.rjust(w) for n, w in zip(numbers, widths, strict=True))]
        )

    row = line([case.layer, case.order], entries)
    return f"{line(['layer', 'order'], heads)}\n{row}" if head else row


WIDTH = 14


def markdown(study: Study) -> str:
    """Format the study as a table in Markdown, its title above."""
    head, *rows = ([c.replace("|", r"\|") for c in row] for row in cells(study))
    lines = [head, [":--"] * 2 + ["--:"] * (len(head) - 2), *rows]
    return f"{title(study)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(study: Study) -> str:
    """Format the study as a LaTeX tabular with booktabs' rules, its title as a comment."""
    head, *rows = ([_escaped(c) for c in row] for row in cells(study))
    lines = [rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([f"% {title(study)}", *lines, r"\bottomrule", r"\end{tabular}"])


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)


def title(study: Study) -> str:
    """Return the title: the counted passes, and the fixed sizes."""
    at = ", ".join(f"{n}={v}" for n, v in study.cases[0].point if n not in study.changing)
    what = "one forward and backward pass" if study.objective == "training" else "one forward pass"
    return what + (f", {at}" if at else "")
