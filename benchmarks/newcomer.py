"""The newcomer's path, timed: from a clone to an equation of one's own that is proved, planned, drawn and inserted.

A fresh clone of this repository, an environment as the README and the tutorial say, the README's example, then the
tutorial from its first line to its last, section by section. The times are the computer's, not the reader's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import arguments, show, write

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALL = "pip install '.[demo]'"
"""What the tutorial tells the reader to type."""


def sections(page: str) -> list[tuple[str, list[str]]]:
    """The headings of a page with their Python blocks; "" stands for what comes before the first."""
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    found = [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    return [(head, [code for language, code in BLOCK.findall(text) if language == "python"]) for head, text in found]


def follow(page: Path) -> None:
    """Run a page's blocks as one program, in this interpreter, and print each section's seconds as JSON."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    steps = []
    for head, codes in sections(page.read_text(encoding="utf-8")):
        started, refused = time.perf_counter(), 0
        for code in codes:
            try:
                exec(compile(code, str(page), "exec"), namespace)
            except Exception as error:  # the page shows two mistakes, and how they are answered
                if type(error).__name__ != "SpecError":
                    raise
                refused += 1
        if codes:
            steps.append({"step": head or "first lines", "s": time.perf_counter() - started, "errors shown": refused})
    print("\n" + json.dumps(steps), file=sys.stderr)


def timed(step: str, *command: str | Path, cwd: Path) -> dict[str, Any]:
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return {"step": step, "s": time.perf_counter() - started, "errors shown": 0}


def main() -> None:
    args = arguments(__doc__)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "polyattn"
        python = clone / ".own" / "bin" / "python"
        runs.append(timed("clone", "git", "clone", "--quiet", ROOT, clone, cwd=Path(name)))
        tutorial = clone / "docs" / "tutorial.md"
        if INSTALL not in tutorial.read_text(encoding="utf-8"):
            raise SystemExit(f"the tutorial no longer says {INSTALL}: this script has to follow it")
        runs.append(timed("environment", sys.executable, "-m", "venv", python.parent.parent, cwd=clone))
        runs.append(timed(INSTALL, python, "-m", "pip", "install", "--quiet", ".[demo]", cwd=clone))
        for page in ("README.md", "docs/tutorial.md"):
            words = [python, clone / "benchmarks" / "newcomer.py", "--follow", clone / page]
            done = subprocess.run(list(map(str, words)), cwd=name, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{page} does not run as it stands:\n{done.stderr}")
            runs += [{**step, "step": f"{page}: {step['step']}"} for step in json.loads(done.stderr.splitlines()[-1])]
            print(f"{page} runs")
    total = sum(r["s"] for r in runs)
    show("from a clone to a trained network", ["step", "s"], [[r["step"], r["s"]] for r in runs])
    print(f"{total / 60:.1f} minutes in all")
    write(args, {"minutes": total / 60}, runs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--follow"]:
        follow(Path(sys.argv[2]))
    else:
        main()
