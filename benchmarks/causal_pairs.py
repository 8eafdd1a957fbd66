"""Generated causal pairs against loops: python benchmarks/causal_pairs.py [--quick] [--out FILE] [--most-minutes N]

Each pair is a sum with one to five ordered indices and conditions of all kinds, in one piece or split into blocks, and
the same sum in other words or with a change. The verdicts of `polyattn.prove` are compared with the values of both at
sizes 1 to 7, by loops that share nothing with the library (`tests/ordered.py`). A piece is 250 pairs of one seed; PAIRS
says how many there are (10000). With `--out` the pieces that the file has already are kept.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import polyattn as pa
from benchmarks._common import arguments, resumed, show
from tests.ordered import Sum, changed, drawn_sum, drawn_tensors, in_parts, rewritten, split_text, text, values

PIECE = 250
"""Pairs of a seed."""
LOOPS = 3_000
"""Loops of a term at the largest size that is compared; longer ones are left out."""
SIZES = [(n, 1) for n in range(1, 8)]
SPLIT = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2)]
"""Numbers of blocks, and of places in one."""


def agree(left: Sum, right: Sum, sizes: Sequence[tuple[int, int]], random: Random) -> bool:
    for blocks, block in sizes:
        n = blocks * block
        if max(n ** len(p.indices | {"a"}) for p in (*left, *right)) > LOOPS:
            break
        tensors = drawn_tensors(random, n)
        if values(left, tensors, n, block) != values(right, tensors, n, block):
            return False
    return True


def misjudged(verdict: pa.Verdict, left: Sum, right: Sum, equal: bool) -> bool:
    """Return whether loops contradict a verdict: values that differ, or a counterexample that is not one."""
    if verdict.status == "equal":
        return not equal
    if verdict.status != "different":
        return False
    example: Any = verdict.counterexample
    sizes = example["sizes"]
    n, block = (sizes["G"] * sizes["M"], sizes["M"]) if "G" in sizes else (sizes["N"], 1)
    drawn = {"x": [0] * 99, "u": [0] * 99, "m": [[0] * 99] * 99} | example["tensors"]
    (place,) = example["entry"]
    sides = [str(values(side, drawn, n, block)[place]) for side in (left, right)]
    return sides != [str(example["left"]), str(example["right"])] or sides[0] == sides[1]


def judged(seed: int, pairs: int) -> dict[str, Any]:
    random, counts, wrong, start = Random(seed), Counter[str](), list[str](), time.process_time()
    for _ in range(pairs):
        split = random.random() < 0.25
        most = random.choice((1, 2, 2, 3, 3, 4))
        left = drawn_sum(random, most, shifts=not split and random.random() < 0.4)
        left = in_parts(random, left) if split else left
        right = rewritten(random, left)
        same = random.random() < 0.5
        right = right if same else changed(random, right)
        write, sizes = (split_text, SPLIT) if split else (text, SIZES)
        equal = agree(left, right, sizes, random)
        if same and not equal:
            raise AssertionError(f"the loops tell apart what is equal: {write(left)} and {write(right)}")
        verdict = pa.prove(write(left), write(right))
        counts[verdict.status] += 1
        counts["in blocks"] += split
        counts["of five indices"] += max(len(p.indices | {"a"}) for p in (*left, *right)) == 5
        counts["equal but not proved"] += same and verdict.status != "equal"
        if misjudged(verdict, left, right, equal):
            wrong.append(f"{verdict.status}: {write(left)} | {write(right)}")
            print("WRONG", wrong[-1], flush=True)
    names = ("equal", "different", "undecided", "equal but not proved", "in blocks", "of five indices")
    seconds = round(time.process_time() - start, 1)
    return {"pairs": pairs, **{n: counts[n] for n in names}, "wrong": wrong, "seconds": seconds}


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = {name: sum(r[name] for r in runs) for name in runs[0] if name not in ("case", "wrong", "seconds")}
    return {**total, "wrong": sum(len(r["wrong"]) for r in runs), "seconds": round(sum(r["seconds"] for r in runs))}


def main() -> None:
    args = arguments(__doc__, resumable=True)
    pairs = 40 if args.quick else int(os.environ.get("PAIRS", "10000"))
    pieces = {f"seed {k}": min(PIECE, pairs - k * PIECE) for k in range(-(-pairs // PIECE))}
    runs = resumed(args, {n: partial(judged, int(n.split()[1]), p) for n, p in pieces.items()}, summary)
    found = summary(runs)
    show("generated causal pairs", ("", "number"), list(found.items()))


if __name__ == "__main__":
    main()
