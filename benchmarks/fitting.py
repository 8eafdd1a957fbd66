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

CHANNELS = 6
RANKS = {
    "cp_nl": [(r,) for r in range(2, 8)],
    "tucker_nl": [(r,) * 4 for r in range(1, 6)],
    "tt_nl": [(r,) * 3 for r in range(1, 6)],
}
TRUE = {"cp_nl": 5, "tucker_nl": 3, "tt_nl": 3}


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


def exchange(channels: int, symmetry: str) -> dict[str, Any]:
    """The smallest CP rank that holds a product of two random matrices."""
    pair = np.random.default_rng(0).normal(size=(2, channels, channels))
    found = factorise(np.einsum("df,hb->bdfh", *pair), max_error=1e-6, symmetry=symmetry, starts=10)
    return {"channels": channels, "symmetry": symmetry, "rank": found.ranks[0], "error": found.error}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for family in RANKS:
        own = [r for r in runs if r.get("family") == family]
        points = [(r["rank"] - TRUE[family], max(r["error"], 1e-16)) for r in own]
        if points:
            axis.plot(*zip(*points, strict=True), "o", alpha=0.7, label=family)
    axis.set(yscale="log", xlabel="rank above the core's own", ylabel="relative error", title="random cores, each seed")
    axis.axhline(1e-6, linestyle=":", color="black")
    axis.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    args = arguments(__doc__, resumable=True)
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for family, ranks in RANKS.items():
        for rank in ranks:
            for seed in range(1 if args.quick else 3):
                cases[f"{family} {rank[0]} seed {seed}"] = lambda f=family, r=rank, s=seed: recovery(f, r, s)
    for channels in (2,) if args.quick else (2, 3, 4):
        for symmetry in ("none", "pair", "shared"):
            cases[f"nl {channels} {symmetry}"] = lambda c=channels, s=symmetry: exchange(c, s)
    runs = resumed(args, cases, lambda found: {"cases": len(found)})
    if args.out is not None:
        draw(runs, args.out.with_suffix(".png"))
    for run in runs:
        print({k: v for k, v in run.items() if k != "case"})


if __name__ == "__main__":
    main()
