"""Errors by rank of random cores of known rank, and how much CP rank the exchange of the two x saves.

python benchmarks/fitting.py --out benchmarks/results/fitting.json      # resumes; draws fitting.png beside it
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, resumed

from polyattn.fitting import factorise
from polyattn.fitting.family import SYMMETRIES

CHANNELS = 6
RANKS = {
    "cp_nl": [(r,) for r in range(2, 8)],
    "tucker_nl": [(r,) * 4 for r in range(1, 6)],
    "tt_nl": [(r,) * 3 for r in range(1, 6)],
}
TRUE = {"cp_nl": 5, "tucker_nl": 3, "tt_nl": 3}
EXCHANGE = {2: range(2, 5), 3: range(4, 10), 4: range(8, 17)}
"""The CP ranks tried for NL's core at so many channels."""
EXACT = 1e-6


def core(family: str, seed: int) -> np.ndarray:
    """A random core of the family's true rank."""
    generator, c, r = np.random.default_rng(seed), CHANNELS, TRUE[family]
    if family == "cp_nl":
        return np.einsum("br,dr,fr,hr->bdfh", *generator.normal(size=(4, c, r)))
    if family == "tucker_nl":
        sides = generator.normal(size=(4, c, r))
        return np.einsum("rstu,dr,fs,ht,bu->bdfh", generator.normal(size=(r,) * 4), *sides)
    ends, middle = generator.normal(size=(2, c, r)), generator.normal(size=(2, r, c, r))
    return np.einsum("dr,rfs,sht,bt->bdfh", ends[0], middle[0], middle[1], ends[1])


def recovery(family: str, rank: tuple[int, ...], seed: int) -> dict[str, Any]:
    found = factorise(core(family, seed), family, rank=rank if len(rank) > 1 else rank[0], seed=seed)
    return {"family": family, "rank": rank[0], "seed": seed, "error": found.error}


def exchange(channels: int, symmetry: str, rank: int) -> dict[str, Any]:
    """CP of a product of two random matrices, the core of NL."""
    pair = np.random.default_rng(0).normal(size=(2, channels, channels))
    found = factorise(np.einsum("df,hb->bdfh", *pair), rank=rank, symmetry=symmetry, starts=6)
    return {"channels": channels, "symmetry": symmetry, "rank": rank, "error": found.error}


def smallest(runs: list[dict[str, Any]]) -> dict[str, int]:
    """The smallest rank of those tried with an error below EXACT, by channels and symmetry."""
    exact = [r for r in runs if "symmetry" in r and r["error"] < EXACT]
    keys = dict.fromkeys((r["channels"], r["symmetry"]) for r in exact)
    return {f"C = {c}, {s}": min(r["rank"] for r in exact if (r["channels"], r["symmetry"]) == (c, s)) for c, s in keys}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    worst = {}
    for family, true in TRUE.items():
        own = [r for r in runs if r.get("family") == family]
        at = [r["error"] for r in own if r["rank"] == true]
        below = [r["error"] for r in own if r["rank"] == true - 1]
        if at and below:
            worst[family] = {"true rank": true, "largest error at it": max(at), "smallest one below it": min(below)}
    return {"recovery": worst, "smallest exact rank of NL": smallest(runs)}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for family in RANKS:
        points = [(r["rank"] - TRUE[family], max(r["error"], 1e-16)) for r in runs if r.get("family") == family]
        left.plot(*zip(*points, strict=True), "o", alpha=0.7, label=family)
    left.set(yscale="log", xlabel="rank above the core's own", ylabel="relative error", title="random cores, each seed")
    channels = max(EXCHANGE)
    for symmetry in SYMMETRIES:
        own = [r for r in runs if r.get("symmetry") == symmetry and r["channels"] == channels]
        right.plot([r["rank"] for r in own], [max(r["error"], 1e-16) for r in own], "o-", alpha=0.7, label=symmetry)
    right.set(yscale="log", xlabel="CP rank", title=f"NL's core at C = {channels}, by what is exchanged")
    for axis in (left, right):
        axis.axhline(EXACT, linestyle=":", color="black")
        axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    args = arguments(__doc__, resumable=True)
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for family, ranks in RANKS.items():
        for rank in ranks:
            for seed in range(1 if args.quick else 3):
                cases[f"{family} {rank[0]} seed {seed}"] = lambda f=family, r=rank, s=seed: recovery(f, r, s)
    for channels in (2,) if args.quick else EXCHANGE:
        for symmetry in SYMMETRIES:
            for rank in EXCHANGE[channels]:
                name = f"nl {channels} {symmetry} {rank}"
                cases[name] = lambda c=channels, s=symmetry, r=rank: exchange(c, s, r)
    runs = resumed(args, cases, summary)
    if args.out is not None and len(runs) == len(cases) and not args.quick:
        draw(runs, args.out.with_suffix(".png"))
    for run in runs:
        print({k: v for k, v in run.items() if k != "case"})


if __name__ == "__main__":
    main()
