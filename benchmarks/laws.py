"""The prover on generated pairs with functions, equal by laws or near misses, checked by mpmath at 60 digits.

    PAIRS=4000 python benchmarks/laws.py --out benchmarks/results/laws.json

A wrong yes is an "equal" where the values differ at one of six points; a wrong no a "different" where they agree at the
counterexample. Values are of the expressions, not of the texts, by code that shares nothing with polyattn (`_laws.py`).
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from random import Random
from typing import Any

from _common import arguments, show, write
from _laws import OutsideError, agree, differ_at, pair, text

import polyattn as pa

EFFORT = 300
STATUSES = ("equal", "different", "undecided", "refused")
PAIRS = int(os.environ.get("PAIRS", "400"))


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


def main() -> None:
    args = arguments(__doc__)
    summary: dict[str, Any] = {}
    wrong: list[dict[str, Any]] = []
    pairs = 40 if args.quick else PAIRS
    for near in (False, True):
        found = [judged(number, near) for number in range(pairs // 2)]
        wrong += [case for case in found if case["wrong"]]
        for case in found:
            if os.environ.get("SHOW") and (case["wrong"] or case["status"] in ("undecided", "refused")):
                print(json.dumps(case), flush=True)
        counts = Counter(case["status"] for case in found)
        summary["near miss" if near else "equal by laws"] = {
            "pairs": len(found),
            **{status: counts[status] for status in STATUSES},
            "of the same values": sum(c["same"] is True for c in found),
            "wrong": sum(case["wrong"] for case in found),
            "mean ms": round(1000 * sum(c["seconds"] for c in found) / len(found), 1),
            "worst ms": round(1000 * max(c["seconds"] for c in found)),
        }
    rows = [(kind, *row.values()) for kind, row in summary.items()]
    show("pairs with functions", ("pairs are", *next(iter(summary.values()))), rows)
    write(args, summary, wrong)


if __name__ == "__main__":
    main()
