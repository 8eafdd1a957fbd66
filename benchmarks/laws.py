"""The prover on generated pairs with functions, equal by laws or near misses, checked by mpmath at 60 digits.

    PAIRS=4000 python benchmarks/laws.py --out benchmarks/results/laws.json

A wrong yes is an "equal" where the values differ at one of six points; a wrong no a "different" where they agree at the
counterexample. Values are of the expressions, not of the texts, by code that shares nothing with polyattn (`_laws.py`).
"""

from __future__ import annotations

import time
from random import Random
from typing import Any

from _common import judge_pairs
from _laws import OutsideError, agree, differ_at, pair, text

import polyattn as pa

EFFORT = 300


def judged(number: int, near: bool) -> dict[str, Any]:
    """The prover's answer to a pair, and the oracle's."""
    random = Random(f"{number} {near}")
    left, right = pair(random, near)
    texts = text(left), text(right)
    same = agree(left, right, random)
    start = time.process_time()
    try:
        verdict: Any = pa.prove(*texts, effort=EFFORT)
        status, reason = verdict.status, verdict.reason
    except pa.PolyattnError as error:
        verdict = None
        status, reason = "refused", str(error)
    seconds = time.process_time() - start
    wrong = status == "equal" and same is False
    if status == "different":
        try:
            wrong = not differ_at(left, right, verdict.counterexample)
        except OutsideError:  # a counterexample outside of a domain is none
            wrong = True
    return {"texts": texts, "status": status, "same": same, "wrong": wrong, "seconds": seconds, "reason": reason}


if __name__ == "__main__":
    judge_pairs(__doc__, "pairs with functions", ("equal by laws", "near miss"), judged)
