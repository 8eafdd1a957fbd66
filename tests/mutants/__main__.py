"""`python -m tests.mutants [WORD ...]`: put each edit into a copy of the project and run the tests that it names.

An edit is *killed* if a test fails or the limit passes, *survived* if all pass, *broken* if pytest cannot run, *stale*
if it does not fit the sources. The tests have to pass without an edit first. Exit status 0: all killed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.mutants.edits import ROOT, Edit, read, stale
from tests.mutants.running import PASSED, run_tests, try_edit

LEFT_OUT = shutil.ignore_patterns(".*", "site", "build", "dist", "demo-results", "node_modules")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only edits whose list or file has one of these in its name")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--limit", type=float, default=120, help="seconds for the tests of one edit")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    begun = time.monotonic()
    edits = read(tuple(options.words))
    found = {edit: ("stale", reason) for edit in edits if (reason := stale(edit))}
    fresh = [edit for edit in edits if edit not in found]
    for edit, (_, reason) in found.items():
        print(f"stale     {edit}\n{reason}", flush=True)

    with tempfile.TemporaryDirectory(prefix="polyattn-mutants-") as folder:
        trees: Queue[Path] = Queue()
        for job in range(options.jobs):
            trees.put(Path(shutil.copytree(ROOT, Path(folder) / str(job), ignore=LEFT_OUT)))

        def unedited(stage: str) -> str:
            tests = dict.fromkeys(test for edit in fresh if edit.stage == stage for test in edit.tests)
            tree = trees.get()
            status, output = run_tests(tree, tests, 10 * options.limit)
            trees.put(tree)
            return "" if status == PASSED else f"{stage}: the tests do not pass without an edit\n{output}"

        def edited(edit: Edit) -> None:
            tree, start = trees.get(), time.monotonic()
            found[edit] = verdict, output = try_edit(tree, edit, options.limit)
            trees.put(tree)
            print(f"{verdict:8} {time.monotonic() - start:5.1f} s  {edit}\n{output}".rstrip(), flush=True)

        with ThreadPoolExecutor(options.jobs) as pool:
            failures = [text for text in pool.map(unedited, dict.fromkeys(e.stage for e in fresh)) if text]
            if failures:
                print("\n".join(failures))
                return 1
            print(f"the tests pass without an edit ({time.monotonic() - begun:.0f} s)", flush=True)
            list(pool.map(edited, fresh))

    verdicts = [verdict for verdict, _ in found.values()]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("killed", "survived", "broken", "stale"))
    print(f"{len(edits)} edits in {time.monotonic() - begun:.0f} s: {counts}")
    for edit, (verdict, _) in found.items():
        if verdict != "killed":
            print(f"{verdict}: {edit}")
    return 0 if edits and set(verdicts) == {"killed"} else 1


if __name__ == "__main__":
    sys.exit(main())
