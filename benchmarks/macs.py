"""Multiply-accumulates of plans against opt_einsum, cotengra and the author's order, for the whole catalogue.

The rivals order each product of the expanded specification by itself, with the batch as an index, and their
multiply-accumulates are added up; indices that one tensor alone has are summed beforehand at no cost, as in the plans.
opt_einsum searches all orders ("optimal"); cotengra takes the best of 128 trials with a fixed seed. Backward passes are
compared with what autograd takes for the author's order: two products for each of the forward pass.
"""

from __future__ import annotations

from functools import cache, partial
from math import prod
from typing import Any

import opt_einsum
from _common import arguments, geometric_mean, resumed, show, sizes_of

from polyattn import Spec, catalog, plan
from polyattn.algebra import Index, Monomial
from polyattn.lowering.einsums import einsum_plan
from polyattn.planning import BATCH
from polyattn.planning.steps import multiplies

try:
    import cotengra
except ImportError:
    cotengra = None

GRIDS = ((7, 7), (14, 14), (16, 24), (28, 28), (56, 56), (64, 48), (112, 112), (256, 256), (480, 640), (1000, 1000))
CHANNELS = (16, 64, 192, 512, 1024, 2048)
BATCHES = (1, 2, 8, 16, 64)
TRIALS = 128
MOST_SECONDS = 60.0
"""Of cotengra's search for one product."""

POINTS = [
    (BATCHES[(k + 3 * j) % len(BATCHES)], *grid, channels)
    for k, grid in enumerate(GRIDS)
    for j, channels in enumerate(CHANNELS)
]
BATCH_INDEX = Index(-1, BATCH)
Factors = tuple[tuple[Index, ...], ...]


def factors_of(spec: Spec, term: Monomial) -> tuple[Factors, frozenset[Index]]:
    """The indices of a product's factors, those that one factor alone has left out, and those of the output."""
    inputs = set(spec.inputs)
    indices = [((BATCH_INDEX,) if f.tensor in inputs else ()) + f.indices for f in term.factors]
    keep = frozenset((BATCH_INDEX, *spec.polynomial().signature.output_indices()))
    shared = [
        tuple(i for i in dict.fromkeys(own) if i in keep or any(i in o for n, o in enumerate(indices) if n != k))
        for k, own in enumerate(indices)
    ]
    return tuple(shared), keep


def macs_along(path: list[tuple[int, ...]], factors: Factors, keep: frozenset[Index], lengths: dict[Index, int]) -> int:
    """Multiply-accumulates of the products of a path."""
    alive, total = list(factors), 0
    for positions in path:
        chosen = [alive[k] for k in positions]
        alive = [o for k, o in enumerate(alive) if k not in positions]
        result = chosen[0]
        for other in chosen[1:]:
            both = dict.fromkeys((*result, *other))
            total += prod(lengths[i] for i in both)
            needed = keep.union(*alive, *chosen)
            result = tuple(i for i in both if i in needed)
        needed = keep.union(*alive)
        alive.append(tuple(i for i in result if i in needed))
    return total


@cache
def rivals(factors: Factors, keep: frozenset[Index], numbers: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """What each path finder takes for one product."""
    known = dict(numbers)
    letters = {i: opt_einsum.get_symbol(k) for k, i in enumerate(dict.fromkeys(i for o in factors for i in o))}
    lengths = {i: int(i.size) if i.size.isdigit() else known[i.size] for i in letters}
    terms = [[letters[i] for i in o] for o in factors]
    output = [letters[i] for i in letters if i in keep]
    dictionary = {letters[i]: n for i, n in lengths.items()}
    equation = f"{','.join(map(''.join, terms))}->{''.join(output)}"
    shapes = [tuple(lengths[i] for i in o) for o in factors]
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="optimal")
    found = {"opt_einsum": macs_along(path, factors, keep, lengths)}
    if cotengra is not None:
        search = cotengra.HyperOptimizer(
            methods=["greedy"],
            optlib="random",
            max_repeats=TRIALS,
            max_time=MOST_SECONDS,
            minimize="flops",
            parallel=False,
            progbar=False,
            seed=0,
        )
        tree = search.search(terms, output, dictionary)
        found["cotengra"] = macs_along(list(tree.get_path()), factors, keep, lengths)
    return found


def measure(name: str, batch: int, height: int, width: int, channels: int) -> dict[str, Any]:
    spec = catalog.get(name)
    sizes = sizes_of(spec, height, width, channels)
    given = {"B": batch, **sizes}
    forward = plan(spec, given, cost="macs")
    training = plan(spec, given, "training", cost="macs")
    written = plan(spec, given, "as_written")
    found = {"written": written.macs}
    for term in spec.polynomial().terms:
        for rival, macs in rivals(*factors_of(spec, term), forward.graph.sizes).items():
            found[rival] = found.get(rival, 0) + macs
    return {
        "layer": name,
        "B": batch,
        "H": height,
        "W": width,
        "C": channels,
        "sizes": sizes,
        "strategy": forward.strategy,
        "planned": forward.macs,
        "rivals": found,
        "training": training.training_macs,
        "training_strategy": training.strategy,
        "autograd": 3 * written.macs,
        "autograd_of_planned": 3 * forward.macs,
    }


def einsums() -> list[dict[str, Any]]:
    """Products of repeated tensors: how many products of matrices, and how many multiply-accumulates."""
    n, m, k, p = 96, 64, 128, 256
    found = []
    for equation, shapes, first, bound in (
        ("ij,jk,lk,zl->iz", [(n, m), (m, k), (m, k), (n, m)], (0, 1, 1, 0), n * m * k + n * k * n),
        ("nlp,nlq->l", [(n, m, p), (n, m, p)], (0, 0), n * m),
    ):
        graph = einsum_plan(equation, shapes, first)
        path, info = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="optimal")
        found.append(
            {
                "equation": equation,
                "shapes": shapes,
                "products": sum(map(multiplies, graph.nodes)),
                "macs": graph.macs,
                "expected": bound,
                "opt_einsum products": len(path),
                "opt_einsum flops": int(info.opt_cost),
            }
        )
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ways = {rival: ("planned", lambda r, rival=rival: r["rivals"][rival]) for rival in runs[0]["rivals"]}
    ways["training against autograd of the author's order"] = ("training", lambda r: r["autograd"])
    ways["training against autograd of the planned order"] = ("training", lambda r: r["autograd_of_planned"])
    for way, (mine, theirs) in ways.items():
        ratios = [theirs(r) / r[mine] for r in runs]
        found[way] = {
            "cases": len(ratios),
            "above": sum(q < 1 for q in ratios),
            "strictly below": sum(q > 1 for q in ratios),
            "geometric mean": geometric_mean(ratios),
            "most": max(ratios),
        }
    return found


def main() -> None:
    args = arguments(__doc__, resumable=True)
    cases = {
        f"{name} B={b} H={h} W={w} C={c}": partial(measure, name, b, h, w, c)
        for b, h, w, c in (POINTS[::12] if args.quick else POINTS)
        for name in catalog.names("third_order")
    }
    special = einsums()
    runs = resumed(args, cases, lambda found: {**summary(found), "einsums": special})
    totals = summary(runs)
    rows = []
    for name in sorted({r["layer"] for r in runs}):
        mine = [r for r in runs if r["layer"] == name]
        rows.append(
            [name]
            + [geometric_mean(r["rivals"][k] / r["planned"] for r in mine) for k in runs[0]["rivals"]]
            + [geometric_mean(r["autograd"] / r["training"] for r in mine)]
        )
    show("geometric mean of MACs over the plan's", ("layer", *runs[0]["rivals"], "training / autograd"), rows)
    head = ("rival", "cases", "plan above", "plan strictly below", "geometric mean", "most")
    show("summary", head, [(k, *v.values()) for k, v in totals.items()])
    show(
        "repeated tensors",
        ("equation", "products", "MACs", "expected"),
        [(e["equation"], e["products"], e["macs"], e["expected"]) for e in special],
    )
    assert all(v["above"] == 0 for k, v in totals.items() if "planned" not in k), "a plan is above a rival"
    assert all(e["macs"] <= e["expected"] for e in special), "an einsum of repeated tensors takes more than expected"


if __name__ == "__main__":
    main()
