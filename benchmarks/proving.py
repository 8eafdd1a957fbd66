"""The prover on generated pairs, checked by evaluation modulo a prime; its times on identities and symmetric graphs.

    PAIRS=10000 python benchmarks/proving.py --out benchmarks/results/proving.json

The file is written after every 50 pairs; the same command goes on where it was stopped, and MINUTES=10 stops it.

A wrong yes is an "equal" where the values differ; a wrong no is a "different" where they agree. The values come from
`polyattn.testing.modular`, which evaluates the texts as they are written, at sizes larger than the number of indices.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

from _common import arguments, show, write
from _drawn import drawn

import polyattn as pa
from polyattn.testing import equivalent_pairs, near_misses
from polyattn.testing.modular import agree
from polyattn.testing.pairs import generic_sizes
from proofs.__main__ import theorems

OPTIONS = {"max_indices": 5, "max_monomials": 5}
EFFORT = 2000
"""Monomials that the search for a counterexample may evaluate for one pair; the default is 60,000."""
CHUNK = 50
COUNTED = ("equal", "different", "undecided", "refused", "too large")
STRATEGIES = {"equivalent": equivalent_pairs(**OPTIONS), "near miss": near_misses(**OPTIONS)}


def judged(pair: tuple[str, str]) -> dict[str, Any] | None:
    """The prover's answer and the oracle's; None if the oracle's arrays would be too large."""
    left, right = map(pa.Spec, pair)
    try:
        same = agree(left, right, generic_sizes(left, right))
    except pa.BudgetError:
        return None
    start = time.perf_counter()
    try:
        status = pa.prove(left, right, effort=EFFORT).status
    except pa.ProofError as error:  # such as an edit that changes the output's shape
        print(pair, error, flush=True)
        status = "refused"
    seconds = time.perf_counter() - start
    wrong = (status == "equal" and not same) or (status == "different" and same)
    return {"status": status, "agree": same, "wrong": wrong, "seconds": seconds}


def chunk(kind: str, first: int, seen: set[str]) -> dict[str, Any]:
    """The answers to the next pairs that were not seen before."""
    answers, spent, digests, wrong, large, number = Counter[str](), [], [], [], 0, first
    while len(spent) < CHUNK:
        pair, number = drawn(STRATEGIES[kind], f"{kind} {number}"), number + 1
        digest = hashlib.sha256("|".join(pair).encode()).hexdigest()[:10] if pair else ""
        if pair is None or digest in seen:
            continue
        seen.add(digest)
        digests.append(digest)
        run = judged(pair)
        if run is None:
            large += 1
            continue
        answers[run["status"]] += 1
        answers["the oracle agrees"] += run["agree"]
        spent.append(1000 * run["seconds"])
        wrong += [{"pair": pair, **run}] if run["wrong"] else []
    return {
        "kind": kind, "first": first, "next": number, "pairs": len(spent), **answers, "too large": large,
        "ms": round(sum(spent), 1), "worst ms": round(max(spent), 1), "wrong": wrong, "digests": " ".join(digests),
    }  # fmt: skip


def earlier(path: Path | None) -> list[dict[str, Any]]:
    """The chunks that are in the file."""
    runs = json.loads(path.read_text())["runs"] if path is not None and path.exists() else []
    return [run for run in runs if run.get("kind") in STRATEGIES]


def table(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each kind of pairs."""
    rows = []
    for kind in STRATEGIES:
        mine = [c for c in chunks if c["kind"] == kind]
        total = {k: sum(c.get(k, 0) for c in mine) for k in ("pairs", *COUNTED)}
        wrong = sum(len(c["wrong"]) for c in mine)
        spent = sum(c["ms"] for c in mine) / max(1, total["pairs"])
        worst = max((c["worst ms"] for c in mine), default=0.0)
        rows.append({"kind": kind, **total, "wrong": wrong, "mean ms": round(spent, 1), "worst ms": worst})
    return rows


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
    end = time.monotonic() + 60 * float(os.environ.get("MINUTES", "inf"))
    count = 100 if args.quick else int(os.environ.get("PAIRS", "10000"))
    seconds_of("x[N]; y[a] = x[a]", "x[N]; y[b] = x[b]")
    graphs = {name: seconds_of(text, shuffled(text)) for name, text in symmetric_graphs().items()}
    show("Products of 12 factors", ["graph", "s", "answer"], [(n, s, a) for n, (s, a) in graphs.items()])
    claims = {c.name: seconds_of(c.left, c.right, c.given) for t in theorems().values() for c in t.claims}
    slow = sorted(claims.items(), key=lambda item: -item[1][0])
    show("The slowest identities", ["claim", "s", "answer"], [(n, s, a) for n, (s, a) in slow[:8]])
    timings = [{"name": n, "seconds": round(s, 5), "status": a} for n, (s, a) in {**graphs, **claims}.items()]
    chunks = earlier(args.out)
    seen = {digest for c in chunks for digest in c["digests"].split()}

    def save() -> None:
        summary = {"effort": EFFORT, "generated": table(chunks), "identities": len(claims)}
        summary |= {"slowest identity in s": slow[0][1][0]}
        summary |= {"slowest product of 12 factors in s": max(s for s, _ in graphs.values())}
        write(args, summary, [*timings, *chunks])

    save()
    while (done := sum(c["pairs"] for c in chunks)) < count and time.monotonic() < end:
        kind = min(STRATEGIES, key=lambda k: sum(c["pairs"] for c in chunks if c["kind"] == k))
        first = max((c["next"] for c in chunks if c["kind"] == kind), default=0)
        chunks.append(chunk(kind, first, seen))
        print(done + CHUNK, kind, chunks[-1]["wrong"] or "", flush=True)
        save()
    rows = table(chunks)
    show("Generated pairs", list(rows[0]), [tuple(row.values()) for row in rows])


if __name__ == "__main__":
    main()
