"""Generated causal pairs against loops: python benchmarks/causal_pairs.py [PAIRS] [SEED]

Each pair is a sum with one to five ordered indices and conditions of all kinds, and the same sum in other words or with
a change. The verdicts of `polyattn.prove` are compared with the values of both at sizes 1 to 7, by loops that share
nothing with the library (`tests/ordered.py`). Prints and returns the counts; a wrong verdict is an error.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

import polyattn as pa
from tests.ordered import changed, drawn_sum, drawn_tensors, rewritten, text, values

LOOPS = 3_000
"""Loops of a term at the largest size that is compared; longer ones are left out."""


def agree(left, right, random: Random) -> bool:
    for n in range(1, 8):
        if max(n ** len(p.indices | {"a"}) for p in (*left, *right)) > LOOPS:
            break
        tensors = drawn_tensors(random, n)
        if values(left, tensors, n) != values(right, tensors, n):
            return False
    return True


def main(pairs: int, seed: int) -> dict[str, int]:
    random, counts, start = Random(seed), Counter[str](), time.process_time()
    while counts["pairs"] < pairs:
        most = random.choice((1, 2, 2, 3, 3, 4))
        left = drawn_sum(random, most, shifts=random.random() < 0.3)
        right = rewritten(random, left)
        same = random.random() < 0.5
        if not same:
            right = changed(random, right)
        equal = agree(left, right, random)
        if same and not equal:
            raise AssertionError(f"the loops tell apart what is equal: {text(left)} and {text(right)}")
        verdict = pa.prove(text(left), text(right))
        counts["pairs"] += 1
        counts[verdict.status] += 1
        if verdict.status == "equal" and not equal:
            counts["wrong"] += 1
            print("WRONG equal", text(left), "|", text(right), flush=True)
        if verdict.status == "different":
            example = verdict.counterexample
            n, drawn = example["sizes"]["N"], {"x": [0] * 99, "u": [0] * 99, "m": [[0] * 99] * 99}
            (place,) = example["entry"]
            drawn |= example["tensors"]
            sides = [str(values(side, drawn, n)[place]) for side in (left, right)]
            if sides != [str(example["left"]), str(example["right"])] or sides[0] == sides[1]:
                counts["wrong"] += 1
                print("WRONG different", text(left), "|", text(right), flush=True)
        if same and verdict.status != "equal":
            counts["equal but not proved"] += 1
    counts["seconds"] = round(time.process_time() - start)
    return {**counts, "wrong": counts["wrong"]}


if __name__ == "__main__":
    pairs, seed = (int(a) for a in (*sys.argv[1:], "2000", "0")[:2])
    print(json.dumps(main(pairs, seed)))
