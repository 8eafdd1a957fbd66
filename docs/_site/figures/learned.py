"""Tables of what was trained or fitted: small networks, compressed layers, cores."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from records import load, table


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
        own = [r for r in record["runs"] if r.get("family") == family and "rank" in r]
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


def budgets() -> str:
    """Errors within budgets of parameters: of the ranks found, along one path, and of truncations."""
    rows = [
        [f"`{family}`", f"{of['mean error']:.3f}", f"{of['along one path']:.3f}", f"{of['of truncation']:.3f}"]
        for family, of in load("fitting")["summary"]["budgets"].items()
    ]
    return table(["family", "found", "along one path", "truncation"], rows)


TABLES = (digits, compressed, recovery, exchanged, budgets)
