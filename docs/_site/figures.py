"""The figures that pages quote, from benchmarks/results/*.json; `python docs/_site/figures.py` writes them there.

Between `<!-- figures: NAME -->` and `<!-- end of figures -->` stands what the function NAME below makes of the recorded
results. A test compares, so no figure is typed by hand, and a new measurement has to be followed by a run of this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/*.md", "docs/howto/*.md", "benchmarks/results/README.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
LAYERS = {
    "TESA": "TESA",
    "NL": "NL without softmax",
    "L-GNN": "Latent-GNN",
    "E-NL": "E-NL without softmax",
    "Poly-NL": "Poly-NL",
    "BA-Transform": "BA-Transform, block-based",
}
"""The layers of Figure 2, as its record and as the pages call them."""


def main() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(path.relative_to(ROOT))


def pages() -> list[Path]:
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def written(text: str) -> str:
    """A page with its figures as they are recorded now."""
    return BLOCK.sub(lambda match: f"{match[1]}{FIGURES[match[2]]()}\n{match[3]}", text)


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def machine(name: str) -> str:
    at = load(name)["machine"]
    threads = "1 thread" if at["threads"] == 1 else f"{at['threads']} threads"
    return f"{at['processor']}, {threads}, torch {at['torch']}, Python {at['python']}, {at['date']}"


def machines() -> str:
    found: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        if "machine" in load(path.stem):
            found.setdefault(machine(path.stem), []).append(f"`{path.stem}`")
    return "\n".join(f"- {where}: {', '.join(names)}" for where, names in found.items())


def figure2() -> str:
    """One layer at N = 16384, C = 64: milliseconds in the paper's form and planned, forward and in training."""
    head = ["layer", "forward, paper's form", "planned", "training, paper's form", "planned"]
    passes = ("forward", "training")
    return table(head, _figure2(passes, lambda cell: milliseconds(cell["seconds"])))


def figure2_memory() -> str:
    """The same cells: the peak of the allocator."""
    head = ["layer", "peak in training, paper's form", "planned"]
    return table(head, _figure2(("training",), lambda cell: f"{cell['peak bytes'] / 2**20:,.0f} MiB"))


def _figure2(passes: Sequence[str], shown: Callable[[dict[str, Any]], str]) -> list[list[str]]:
    cells = {
        (c["layer"], c["pass"], c["form"]): c
        for c in load("figure2_cpu")["cells"]
        if (c["axis"], c["N"], c["C"]) == ("positions", 16384, 64) and "seconds" in c
    }
    measured = [layer for layer in LAYERS if (layer, "training", "planned") in cells]
    forms = ("paper", "planned")
    return [[LAYERS[name], *(shown(cells[name, p, f]) for p in passes for f in forms)] for name in measured]


def macs() -> str:
    """Multiply-accumulates of plans against other orders."""
    summary = load("macs")["summary"]
    names = {
        "the author's order": "written",
        "opt_einsum, `optimal`": "opt_einsum",
        "cotengra, best of 128 trials": "cotengra",
        "for training: autograd of the author's order": "training against autograd of the author's order",
        "for training: autograd of the planned order": "training against autograd of the planned order",
    }
    head = ["against", "cases", "plan above", "plan below", "theirs over the plan's, geometric mean", "most"]
    rows = []
    for name, key in names.items():
        s = summary[key]
        most = f"{s['most']:,.0f}" if s["most"] > 100 else f"{s['most']:.2f}"
        rows.append([name, s["cases"], s["above"], s["strictly below"], f"{s['geometric mean']:.2f}", most])
    return table(head, rows)


def layers() -> str:
    """Time of the papers' forms over the planned form's, a forward and a backward pass."""
    runs = load("layers_cpu")["runs"]
    names = {
        "paper": "the paper's form",
        "einsum": "`torch.einsum` with opt_einsum",
        "compiled": "`torch.compile` of the paper's form",
    }
    rows = []
    for key, name in names.items():
        ratios = [r["ratios"][key] for r in runs if r["pass"] == "forward + backward" and key in r["ratios"]]
        geometric = exp(mean(map(log, ratios)))
        rows.append([name, len(ratios), f"{geometric:.2f}", f"{min(ratios):.2f}", f"{max(ratios):.3g}"])
    return table(["theirs over the planned form's, medians", "points", "geometric mean", "least", "most"], rows)


def bat() -> str:
    """Blocks against timm's, over ResNet-50's stages at 224 and 448 pixels: from the least to the most."""
    found = load("bat_cpu")["runs"]
    rows = []
    for block, part in (("BilinearAttnTransform", "transform"), ("BatNonLocalAttn", "bat"), ("NonLocalAttn", "nl")):
        for pixels in dict.fromkeys(r["pixels"] for r in found):
            runs = [r for r in found if (r["block"], r["pixels"]) == (part, pixels)]
            cells = [f"`{block}`", pixels]
            for key in ("times faster", "times less memory"):
                for which in ("evaluation", "training"):
                    ratios = [r[key] for r in runs if r["pass"] == which]
                    cells.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
            rows.append(cells)
    head = [
        "against timm's",
        "pixels",
        "evaluation: times as fast",
        "training",
        "evaluation: times less memory",
        "training",
    ]
    return table(head, rows)


def digits() -> str:
    """What each block gains in a small network, seed by seed, with Student's intervals."""
    from scipy.stats import t as student

    record = load("train_digits")
    runs, networks = record["runs"], list(dict.fromkeys(r["network"] for r in record["runs"]))

    def shown(values: list[float], sign: str = "") -> str:
        half = student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
        return f"{mean(values):{sign}.1f} ± {half:.1f}"

    def of(task: str, network: str) -> list[float]:
        return [100 * r["accuracy"] for r in runs if (r["task"], r["network"]) == (task, network)]

    rows = []
    for network in networks:
        row = [network]
        for task in ("digits", "two marks"):
            gains = [a - b for a, b in zip(of(task, network), of(task, networks[0]), strict=True)]
            row += [shown(of(task, network)), shown(gains, "+") if network != networks[0] else ""]
        rows.append(row)
    return table(["network", "digits", "gain", "two marks", "gain"], rows)


def pairs() -> str:
    """Ten thousand generated pairs: what was answered, and in what time."""
    head = ["pairs", "drawn", "equal", "different", "undecided", "refused", "wrong", "mean", "worst"]
    keys = ("pairs", "equal", "different", "undecided", "refused", "wrong")
    found = load("proving")["summary"]["generated"]
    rows = [[f["kind"], *(f"{f[k]:,}" for k in keys), *(f"{f[k]:,.0f} ms" for k in _MS)] for f in found]
    return table(head, rows)


_MS = ("mean ms", "worst ms")


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


def hostile() -> str:
    """What the live page's server answered to random and hostile requests, kind by kind."""
    record = load("hostile")
    rows = []
    for kind, found in record["kinds"].items():
        answers = [f"{outcome}: {count:,}" for outcome, count in sorted(found.items(), key=lambda f: -f[1])]
        rows.append([kind, f"{sum(found.values()):,}", "; ".join(answers)])
    wrong, longest = len(record["faults"]), record["longest wait in seconds"]
    said = (
        f"{wrong or 'None'} hung, crashed the server or came back as markup. With {record['connections']} requests at"
    )
    ends = f"{said} once\nthe longest wait was {longest:.1f} s."
    return f"{table(['kind', 'requests', 'statuses of the answers'], rows)}\n\n{ends}"


def newcomer() -> str:
    """The newcomer's path, step by step."""
    record = load("newcomer")
    rows = [[r["step"], f"{r['s']:.1f} s"] for r in record["runs"]]
    return table(["step", "time"], [*rows, ["in all", f"{record['summary']['minutes']:.1f} minutes"]])


def planning() -> str:
    """What a plan costs to make, and to get from the cache."""
    s = load("planning_cost")["summary"]
    rows = [
        ["a plan at new sizes, the slowest layer's median", f"{s['worst median ms at new sizes']:.0f} ms"],
        ["the same plan again, from the cache", f"{s['worst median µs from the cache']:.0f} µs"],
    ]
    rows += [
        [f"a module's {m['pass']} over its torch code by hand", f"{m['module / by hand']:.2f}"] for m in s["module"]
    ]
    return table(["", "measured"], rows)


def kept() -> str:
    """What Poly-NL keeps for its backward pass, over the input's bytes."""
    head = ["N", "C", "B", "planned, bytes kept over the input's", "paper's form"]
    rows = [
        [r["N"], r["C"], r["B"], f"{r['planned / input']:.2f}", f"{r['paper / input']:.2f}"]
        for r in load("memory")["runs"]
    ]
    return table(head, rows)


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


def kills() -> str:
    """A worker killed again and again, and the bits at the end."""
    rows = [
        [
            {"ddp": "DDP", "fsdp": "FSDP2"}[r["parallel"]],
            r["steps"],
            len(r["kills"]),
            sum(k["during"] != "a step" for k in r["kills"]),
            r["tensors"],
            len(r["differing"]),
        ]
        for r in load("kills")["runs"]
    ]
    head = ["two processes under torchrun", "steps", "kills", "of these while checkpoints were written or removed",
            "tensors compared", "tensors with another bit"]  # fmt: skip
    return table(head, rows)


def chunked() -> str:
    """Layers on files that are larger than memory."""
    rows = [
        [
            {"poly_nl": "Poly-NL", "e_nl softmax": "E-NL with softmax"}[r["layer"]],
            f"{r['map_bytes'] / 1e9:g} GB",
            f"{r['positions'] / 1e6:.1f} million",
            f"{max(r[p]['rss_anon'] for p in ('forward', 'backward')) / 1e6:.0f} MB",
            *(f"{r[p]['cpu_seconds'] / r['map_bytes'] * 1e9:.1f} s" for p in ("forward", "backward")),
        ]
        for r in load("chunked")["runs"]
    ]
    head = ["64 channels", "map", "positions", "memory at most", "forward, processor's time for a GB", "backward"]
    return table(head, rows)


def compressed() -> str:
    """NL on the digits and what replaces it within a third of its cost, for each seed, and points lost elsewhere."""
    runs = load("compress_digits")["runs"]
    third, sixth, half = 1 / 3, 1 / 6, 1 / 2

    def shown(values: list[float]) -> str:
        return f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f}" if len(values) > 1 else ""

    def of(family: str, budget: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [(r, c) for r in runs for c in r["candidates"] if (c["family"], c["budget"]) == (family, budget)]

    def lost(family: str, budget: float) -> str:
        points = [100 * (r["accuracy"] - c["accuracy"]) for r, c in of(family, budget)]
        mean_lost, most = (round(p, 2) + 0.0 for p in (mean(points), max(points)))  # no "-0.00"
        return f"{mean_lost:.2f}, {most:.2f}"

    rows = [
        [
            f"NL, trained, {len(runs)} seeds",
            f"{runs[0]['macs']:,}",
            "",
            shown([r["accuracy"] for r in runs]),
            *[""] * 3,
        ],
        ["a layer of zeros", "0", "", shown([r["without"] for r in runs]), *[""] * 3],
    ]
    for family in dict.fromkeys(c["family"] for r in runs for c in r["candidates"]):
        own = [c for _, c in of(family, third)]
        if len(own) < len(runs):
            continue
        before = "" if family == "truncation" else shown([c["accuracy before"] for c in own])
        row = [family, f"{max(c['macs'] for c in own):,}", before, shown([c["accuracy"] for c in own])]
        rows.append(row + [lost(family, budget) for budget in (third, sixth, half)])
    head = ["layer", "most MACs", "before fine-tuning, %", "accuracy, %"]
    return table([*head, "points lost: mean, most", "at 1/6 of the MACs", "at 1/2"], rows)


def recovery() -> str:
    """Random cores of known rank: the errors of all seeds one below that rank, at it, and above it."""
    record = load("fitting")
    rows = []
    for family, found in record["summary"]["recovery"].items():
        own = [r for r in record["runs"] if r.get("family") == family]
        true = found["true rank"]
        above = max(r["error"] for r in own if r["rank"] > true)
        below, at = found["smallest one below it"], found["largest error at it"]
        rows.append([f"`{family}`", true, f"{below:.2g}", f"{at:.1e}", f"{above:.1e}"])
    return table(["family", "rank r of the core", "smallest error at r - 1", "largest at r", "largest above"], rows)


def exchanged() -> str:
    """The smallest CP rank of those tried that holds NL's core, by what is exchanged."""
    runs = [r for r in load("fitting")["runs"] if "symmetry" in r]
    rows = []
    for channels in dict.fromkeys(r["channels"] for r in runs):
        cells = []
        for symmetry in ("none", "pair", "shared"):
            own = [r for r in runs if (r["channels"], r["symmetry"]) == (channels, symmetry)]
            exact = [r["rank"] for r in own if r["error"] < 1e-6]
            cells.append(min(exact) if exact else f"above {max(r['rank'] for r in own)}")
        rows.append([channels, *cells])
    return table(["C", "as a tensor", '`symmetry="pair"`', '`symmetry="shared"`'], rows)


FIGURES: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        machines, figure2, figure2_memory, macs, layers, bat, digits, pairs, tensorgrad, claims, networks, hostile,
        newcomer, planning, kept, einsum, kills, chunked,
        compressed, recovery, exchanged,
    )
}  # fmt: skip

if __name__ == "__main__":
    main()
