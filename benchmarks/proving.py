"""The prover on generated pairs, checked by evaluation modulo a prime; its times on identities and symmetric graphs.

    PAIRS=10000 python benchmarks/proving.py --out benchmarks/results/proving.json

A wrong yes is an "equal" where the values differ; a wrong no is a "different" where they agree. The values come from
`polyattn.testing.modular`, which evaluates the texts as they are written, at sizes larger than the number of indices.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections import Counter
from itertools import combinations

from _common import arguments, show, write
from hypothesis import HealthCheck, Phase, given, seed, settings

import polyattn as pa
from polyattn.testing import equivalent_pairs, near_misses
from polyattn.testing.modular import agree
from polyattn.testing.pairs import generic_sizes
from proofs.__main__ import theorems

OPTIONS = {"max_indices": 5, "max_monomials": 5}


def judged_pairs(strategy, count: int, number: int) -> tuple[list[dict], int]:
    """What became of different pairs that the strategy draws, and how many were too large to be evaluated."""
    found: dict[tuple[str, str], dict | None] = {}

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(pair):
        if pair not in found and sum(r is not None for r in found.values()) < count:
            found[pair] = judged(pair)

    for k in range(20):
        if sum(r is not None for r in found.values()) < count:
            seed(number + k)(collect)()
    kept = [run for run in found.values() if run is not None]
    return kept, len(found) - len(kept)


def judged(pair: tuple[str, str]) -> dict | None:
    """The prover's answer and the oracle's; None if the oracle's arrays would be too large."""
    left, right = map(pa.Spec, pair)
    try:
        same = agree(left, right, generic_sizes(left, right))
    except pa.BudgetError:
        return None
    start = time.perf_counter()
    status = pa.prove(left, right).status
    seconds = time.perf_counter() - start
    wrong = (status == "equal" and not same) or (status == "different" and same)
    return {"status": status, "agree": same, "wrong": wrong, "seconds": seconds} | ({"pair": pair} if wrong else {})


def graph(edges: list[tuple[int, int]]) -> str:
    """A scalar product of one tensor with an index for each vertex."""
    return "x[N,N]; y = " + "*".join(f"x[v{i},v{j}]" for i, j in edges)


def symmetric_graphs() -> dict[str, str]:
    """Products of 12 factors, of which 8 or more are one tensor."""
    cycle = [(k, (k + 1) % 12) for k in range(12)]
    squares = [(4 * c + k, 4 * c + (k + 1) % 4) for c in range(3) for k in range(4)]
    cube = [(i, i ^ bit) for i in range(8) for bit in (1, 2, 4) if i < i ^ bit]
    ring = "*".join(f"x[v{k},v{(k + 1) % 8}]" for k in range(8)) + "".join(f"*w[v{k},v{k + 4}]" for k in range(4))
    return {
        "cycle of 12": graph(cycle),
        "complete graph of 5, with a path": graph([*combinations(range(5), 2), (4, 5), (5, 6)]),
        "three cycles of 4": graph(squares),
        "six components of 2": graph([(2 * k + a, 2 * k + 1 - a) for k in range(6) for a in (0, 1)]),
        "cube": graph(cube),
        "cycle of 8, with 4 chords of another tensor": f"x[N,N]; y = {ring}; where v0 : N",
        "twelve loops": graph([(k, k) for k in range(12)]),
        "star of 12": graph([(0, k) for k in range(1, 13)]),
    }


def shuffled(text: str) -> str:
    """The same product in reverse, with the vertices in reverse."""
    head, product = text.split("; where")[0].split("y = ")
    names = {f"v{k}": f"u{12 - k}" for k in range(13)}
    for old, new in names.items():
        product = product.replace(f"{old},", f"{new},").replace(f"{old}]", f"{new}]")
    return f"{head}y = {'*'.join(reversed(product.split('*')))}"


def seconds_of(left: str, right: str, given=()) -> tuple[float, str]:
    """The first question about these texts: nothing is cached of them but their parts."""
    start = time.perf_counter()
    status = pa.prove(left, right, given=given).status
    return time.perf_counter() - start, status


def main() -> None:
    args = arguments(__doc__)
    warnings.simplefilter("ignore")
    count = 100 if args.quick else int(os.environ.get("PAIRS", "10000")) // 2
    seconds_of("x[N]; y[a] = x[a]", "x[N]; y[b] = x[b]")
    graphs = {name: seconds_of(text, shuffled(text)) for name, text in symmetric_graphs().items()}
    show("Products of 12 factors", ["graph", "s", "answer"], [(n, s, a) for n, (s, a) in graphs.items()])
    claims = {c.name: seconds_of(c.left, c.right, c.given) for t in theorems().values() for c in t.claims}
    slow = sorted(claims.items(), key=lambda item: -item[1][0])
    show("The slowest identities", ["claim", "s", "answer"], [(n, s, a) for n, (s, a) in slow[:8]])
    runs, large = {}, {}
    for name, strategy in (("equivalent", equivalent_pairs(**OPTIONS)), ("near miss", near_misses(**OPTIONS))):
        runs[name], large[name] = judged_pairs(strategy, count, 1)
    rows = []
    for name, found in runs.items():
        answers = Counter(run["status"] for run in found)
        wrong = sum(run["wrong"] for run in found)
        spent = [run["seconds"] for run in found]
        rows.append((name, len(found), *(answers[s] for s in ("equal", "different", "undecided")), wrong,
                     1000 * statistics.median(spent), 1000 * max(spent)))  # fmt: skip
    head = ["pairs", "number", "equal", "different", "undecided", "wrong", "median ms", "worst ms"]
    show("Generated pairs", head, rows)
    summary = {"pairs": [dict(zip(head, row, strict=True)) for row in rows]}
    summary |= {"redrawn, too large to evaluate": large}
    summary |= {"slowest identity in s": slow[0][1][0], "identities": len(claims)}
    summary |= {"slowest product of 12 factors in s": max(s for s, _ in graphs.values())}
    wrong = [run for found in runs.values() for run in found if run["wrong"]]
    timings = [{"name": n, "seconds": s, "status": a} for n, (s, a) in {**graphs, **claims}.items()]
    write(args, summary, [*timings, *wrong])


if __name__ == "__main__":
    main()
