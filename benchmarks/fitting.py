"""Errors by rank of random cores of known rank, how much CP rank the exchange of the two x saves, and budgets.

Beside them collinear factors of 16 channels, which alternating least squares does not finish, and the errors within a
budget of parameters of cores of NL whose similarity is near rank one: of all tuples of ranks, of those along one path,
and of truncated singular value decompositions of the similarity and the value with a free split of the ranks.

Trained layers are compressed within shares of their multiply-accumulates on data whose features are correlated, by the
best of three families, and by whitened truncation: singular value decompositions of similarity and value weighted by
the square root of the data's second moments, computed here in numpy, with every split of the ranks within the budget.
The best few by the weighted error are fitted to the outputs by the same fine-tuning as the families.

python benchmarks/fitting.py --out benchmarks/results/fitting.json      # resumes; draws fitting.png beside it
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from _common import arguments, resumed

from polyattn import catalog, plan
from polyattn.fitting import compress, factorise
from polyattn.fitting.factorise import FAMILIES
from polyattn.fitting.family import PAIR, SYMMETRIES
from polyattn.nn import Attention

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


def collinear(seed: int, cosine: float = 0.9) -> dict[str, Any]:
    """CP of a core whose factors' columns have this cosine with each other, at its own rank."""
    random, factors = np.random.default_rng(seed), []
    for _ in range(4):
        base = random.normal(size=(16, 1))
        base /= np.linalg.norm(base)
        rest = random.normal(size=(16, 12))
        rest -= base * (base.T @ rest)
        factors.append(cosine**0.5 * base + (1 - cosine) ** 0.5 * rest / np.linalg.norm(rest, axis=0))
    found = factorise(np.einsum("br,dr,fr,hr->bdfh", *factors), rank=12, symmetry="none", starts=2)
    return {"case of": "collinear", "seed": seed, "error": found.error}


def budget(family: str, share: float, seed: int) -> dict[str, Any]:
    """The error within a share of the layer's 2 C² parameters, by three choices of ranks."""
    random, c = np.random.default_rng(seed), 8
    near = np.outer(*random.normal(size=(2, c))) + 0.2 * random.normal(size=(c, c))
    value = random.normal(size=(c, c)) * np.linspace(0.2, 1.5, c)
    core, limit = np.einsum("df,hb->bdfh", near, value), int(share * 2 * c * c)
    options: dict[str, Any] = {"starts": 2, "iterations": 60, "seed": seed}
    found = factorise(core, family, max_params=limit, **options)
    target = torch.from_numpy(np.ascontiguousarray(np.moveaxis(core, 0, -1)))
    along = None
    for ranks in FAMILIES[family].ladder(target, PAIR):
        if sum(prod(s) for s in shapes(family, ranks, c)) <= limit:
            along = ranks
    path = factorise(core, family, rank=along, **options).error if along else None
    return {
        "case of": "budget", "family": family, "share": share, "seed": seed, "error": found.error,
        "ranks": list(found.ranks), "error along one path": path, "error of truncation": truncation(near, value, limit),
    }  # fmt: skip


def shapes(family: str, ranks: tuple[int, ...], channels: int) -> list[list[int]]:
    weights, numbers = FAMILIES[family].weights(ranks, 3)
    return [[channels if isinstance(s, int) else numbers[s] for s in slots] for _, slots in weights]


def truncation(near: np.ndarray, value: np.ndarray, limit: int) -> float:
    """The least error of the two matrices cut by plain SVDs, of all splits of the ranks within the parameters."""
    c, best = len(near), 1.0
    core = np.einsum("df,hb->bdfh", near, value)
    for r in range(1, c + 1):
        for s in range(1, c + 1):
            if 2 * c * (r + s) <= limit:
                cut = [
                    (u[:, :k] * v[:k]) @ w[:k] for (u, v, w), k in ((np.linalg.svd(near), r), (np.linalg.svd(value), s))
                ]
                off = np.einsum("df,hb->bdfh", *cut) - core
                sides = [np.linalg.norm(t + t.swapaxes(2, 3)) for t in (off, core)]
                best = min(best, float(sides[0] / sides[1]))
    return best


def compressed(seed: int) -> dict[str, Any]:
    """A layer of NL's kind with a similarity near rank one and a decaying value, on correlated features."""
    random, c = np.random.default_rng(seed), 12
    near = np.outer(*random.normal(size=(2, c))) / c + 0.05 * random.normal(size=(c, c))
    value = random.normal(size=(c, c)) * np.linspace(0.1, 1.0, c) / c**0.5
    mixing = random.normal(size=(c, c)) * np.geomspace(1, 0.05, c)
    x = torch.from_numpy(np.einsum("bnc,dc->bdn", random.normal(size=(12, 36, c)), mixing)).unflatten(2, (6, 6))
    layer = Attention(catalog.nl(), c, residual=False).double()
    with torch.no_grad():
        layer.wf.copy_(torch.from_numpy(near))
        layer.wg.copy_(torch.from_numpy(value))
    whole = lower_cost(layer, {"N": 36, "C": c})
    rows = x.flatten(2).transpose(1, 2).reshape(-1, c).numpy()
    splits = {share: whitened_splits(near, value, rows.T @ rows / len(rows), int(share * whole)) for share in SHARES}
    ranks = {"block_term_nl": list(dict.fromkeys((1, r, s) for found in splits.values() for r, s in found))}
    options: dict[str, Any] = {"truncation": False, "steps": 30, "seed": seed}
    options["families"] = ("tucker_nl", "tt_nl", "block_term_nl")  # CP keeps to the budgets with few terms only
    ours = compress(layer, x, budgets=SHARES, **options)
    theirs = compress(layer, x, budgets=(), ranks=ranks, **{**options, "iterations": 0})
    row: dict[str, Any] = {"case of": "compress", "seed": seed}
    for share in SHARES:
        limit = int(share * whole)
        mine = [k for k in ours.candidates if k.macs <= limit]
        other = [k for k in theirs.candidates if k.factorisation.ranks[1:] in splits[share]]
        row[f"{share:.3f}"] = {
            "families": min(k.after for k in mine),
            "family": min(mine, key=lambda k: k.after).family,
            "whitened truncation": min(k.after for k in other),
        }
    return row


SHARES = (1 / 6, 1 / 3, 1 / 2)
KEPT = 3
"""Splits of the ranks that are fitted, of each budget."""


def lower_cost(layer: Attention, sizes: dict[str, int]) -> int:
    return plan(layer.spec, {**sizes, "B": 1}).macs


def whitened_splits(near: np.ndarray, value: np.ndarray, moments: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """The ranks of similarity and value within a budget whose whitened truncations leave out least."""
    values, vectors = np.linalg.eigh(moments)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shares = []
    for matrix in (root @ near @ root, root @ value):
        squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        shares.append(1 - np.cumsum(squares) / squares.sum())
    found = []
    for r in range(1, len(near) + 1):
        for s in range(1, len(near) + 1):
            spec = catalog.get("block_term_nl", terms=1, ranks=(r, s), mean=False)
            if plan(spec, {"N": 36, "C": len(near), "B": 1}).macs <= limit:
                found.append((shares[0][r - 1] + (1 - shares[0][r - 1]) * shares[1][s - 1], (r, s)))
    return [ranks for _, ranks in sorted(found)[:KEPT]]


def compressions(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for share in (f"{s:.3f}" for s in SHARES):
        own = [r[share] for r in runs if r.get("case of") == "compress"]
        if own:
            found[share] = {
                "mean error of the families": mean(o["families"] for o in own),
                "of whitened truncation": mean(o["whitened truncation"] for o in own),
                "worse by more than 1 %": sum(o["families"] > 1.01 * o["whitened truncation"] for o in own),
                "better by more than 1 %": sum(o["families"] < 0.99 * o["whitened truncation"] for o in own),
                "of": len(own),
            }
    return found


def budgets(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for family in FAMILIES:
        own = [r for r in runs if r.get("case of") == "budget" and r["family"] == family]
        if own:
            found[family] = {
                "mean error": mean(r["error"] for r in own),
                "along one path": mean(r["error along one path"] or 1.0 for r in own),
                "of truncation": mean(r["error of truncation"] for r in own),
                "worse than either": sum(
                    r["error"] > (1 + 1e-6) * min(r["error along one path"] or 1.0, r["error of truncation"])
                    for r in own
                ),
                "of": len(own),
            }
    return found


def smallest(runs: list[dict[str, Any]]) -> dict[str, int]:
    """The smallest rank of those tried with an error below EXACT, by channels and symmetry."""
    exact = [r for r in runs if "symmetry" in r and r["error"] < EXACT]
    keys = dict.fromkeys((r["channels"], r["symmetry"]) for r in exact)
    return {f"C = {c}, {s}": min(r["rank"] for r in exact if (r["channels"], r["symmetry"]) == (c, s)) for c, s in keys}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    worst = {}
    for family, true in TRUE.items():
        own = [r for r in runs if r.get("family") == family and "rank" in r]
        at = [r["error"] for r in own if r["rank"] == true]
        below = [r["error"] for r in own if r["rank"] == true - 1]
        if at and below:
            worst[family] = {"true rank": true, "largest error at it": max(at), "smallest one below it": min(below)}
    hard = [r for r in runs if r.get("case of") == "collinear"]
    largest = max((r["error"] for r in hard), default=None)
    found = {"recovery": worst, "smallest exact rank of NL": smallest(runs)}
    return {**found, "collinear, largest error": largest, "budgets": budgets(runs), "compress": compressions(runs)}


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for family in RANKS:
        points = [
            (r["rank"] - TRUE[family], max(r["error"], 1e-16))
            for r in runs
            if r.get("family") == family and "rank" in r
        ]
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
    for seed in range(1 if args.quick else 5):
        cases[f"collinear {seed}"] = lambda s=seed: collinear(s)
    for family in FAMILIES:
        for share in (0.5,) if args.quick else (1 / 3, 2 / 3):
            for seed in range(1 if args.quick else 3):
                name = f"budget {family} {share:.2f} {seed}"
                cases[name] = lambda f=family, p=share, s=seed: budget(f, p, s)
    for seed in range(1 if args.quick else 20):
        cases[f"compress {seed}"] = lambda s=seed: compressed(s)
    runs = resumed(args, cases, summary)
    if args.out is not None and len(runs) == len(cases) and not args.quick:
        draw(runs, args.out.with_suffix(".png"))
    for run in runs:
        print({k: v for k, v in run.items() if k != "case"})


if __name__ == "__main__":
    main()
