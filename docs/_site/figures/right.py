"""Tables of whether results are right: provers, einsums, the papers' networks."""

from __future__ import annotations

from statistics import median
from typing import Any

from records import load, milliseconds, table

_MS = ("mean ms", "worst ms")


def pairs() -> str:
    """Ten thousand generated pairs: what was answered, and in what time."""
    head = ["pairs", "drawn", "equal", "different", "undecided", "refused", "wrong", "mean", "worst"]
    keys = ("pairs", "equal", "different", "undecided", "refused", "wrong")
    found = load("proving")["summary"]["generated"]
    rows = [[f["kind"], *(f"{f[k]:,}" for k in keys), *(f"{f[k]:,.0f} ms" for k in _MS)] for f in found]
    return table(head, rows)


def tensorgrad() -> str:
    """The claims of proofs/, decided by two provers."""
    s = load("prover_comparison")["summary"]
    missing = s["claims"] - s["expressed to tensorgrad"]
    rows = [
        [f"claims decided rightly, of {s['claims']}", s["polyattn decides rightly"], s["tensorgrad decides rightly"]],
        ["not expressed (functions, declared properties, an equation that broadcasts, split sizes)", 0, missing],
        ["time over polyattn's, geometric mean", 1, f"{s['its time over ours, geometric mean']:.1f}"],
        ["its range", 1, f"{s['least']:.2f} to {s['most']:.1f}"],
    ]
    return table(["", "polyattn", f"tensorgrad {s['tensorgrad']}"], rows)


def claims() -> str:
    """How long each of the same claims takes, by the median of its runs."""
    runs = load("prover_comparison")["runs"]
    slowest = {holds: max(median(r["seconds"]) for r in runs if r["holds"] is holds) for holds in (True, False)}
    times, (true, false) = {len(r["seconds"]) for r in runs}, (milliseconds(slowest[holds]) for holds in (True, False))
    return (
        f"The slowest of the {sum(r['holds'] for r in runs)} true claims was proved in {true}, the slowest of the "
        f"{sum(not r['holds'] for r in runs)} false ones\nrefuted in {false} (medians of {min(times)}); the first "
        "proof of a process also pays for imports."
    )


def networks() -> str:
    """The BAT paper's networks: what is printed, what is counted by its rules, and what runs."""
    head = ["Table", "network", "printed params (M)", "counted", "printed GMACs", "by its rules", "as polyattn runs it"]
    found: dict[tuple[str, ...], str] = {}
    tables: Any = load("tables")  # the list that the command prints
    for number, row in ((t["table"], r) for t in tables for r in t["rows"]):
        printed, macs = row.get("printed_params_millions"), row.get("printed_gmacs")
        if printed is None or macs is None:
            continue
        places, name = len(printed.partition(".")[2]), row["network"]
        if row["difference_to"]:
            name += f", less {row['difference_to']}"
        counted = [f"{row[key] / 1e9:.3f}" for key in ("macs_by_the_papers_rules", "macs_as_run")]
        found.setdefault((name, printed, f"{row['params'] / 1e6:.{places}f}", macs, *counted), number)
    return table(head, ([number, *row] for row, number in found.items()))


def einsum() -> str:
    """`pa.einsum` against torch.einsum on random equations."""
    s = load("einsum_equal")["summary"]
    rows = [
        ["equations", f"{s['equations']:,}"],
        ["with a repeated operand, an ellipsis, an implicit output", f"{s['with a repeated operand']:,}, "
         f"{s['with an ellipsis']:,}, {s['with an implicit output']:,}"],
        ["unequal", s["unequal"]],
        ["largest relative error of a value, of a gradient", f"{s['worst error of a value']:.1e}, "
         f"{s['worst error of a gradient']:.1e}"],
    ]  # fmt: skip
    return table(["`pa.einsum` against `torch.einsum`, float64", "found"], rows)


def expressible() -> str:
    """timm's attention-like layers as equations: how many, and each one's time over its plan's."""
    record = load("expressible")
    s, runs = record["summary"], sorted(record["runs"], key=lambda r: r["case"].lower())
    said = f"{s['equal']} of {s['classes']} are equal to their equation, {s['different']} different"
    said += f", {s['not said']} not said."
    head = ["layer of timm", "equation", "is", "largest difference", "of the gradient"]
    if s["timed"]:
        means = s["timm / planned"]
        said += (
            f" Geometric means over {s['timed']}\nof timm's time over the plan's: {means['forward']:.2f} forward, "
            f"{means['training']:.2f} forward with backward."
        )
        head += ["timm / planned, forward", "training"]
    rows = []
    for r in runs:
        row = [f"`{r['case']}`", r.get("way", r.get("reason", "").split(":")[0]), r["status"]]
        row += [f"{r[key]:.0e}" if key in r else "" for key in ("values", "gradients")]
        if s["timed"]:
            row += [f"{r['times'][o]['ratio']:.2f}" if "times" in r else "" for o in ("forward", "training")]
        rows.append(row)
    return f"{said}\n\n{table(head, rows)}"


TABLES = (pairs, tensorgrad, claims, networks, einsum, expressible)
