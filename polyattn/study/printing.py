"""Studies as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyattn.study.study import Study

HEADS = {
    "macs": "MACs",
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
    names = ["layer", "order", *study.varied, *(q for q in (*HEADS, "parameters") if q in rows[0])]
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


def title(study: Study) -> str:
    """Return the title: the counted passes, and the fixed sizes."""
    at = ", ".join(f"{n}={v}" for n, v in study.cases[0].point if n not in study.varied)
    what = "one forward and backward pass" if study.objective == "training" else "one forward pass"
    return what + (f", {at}" if at else "")
