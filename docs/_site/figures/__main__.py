"""The figures that pages quote, from benchmarks/results/*.json; `python docs/_site/figures` writes them there.

Between `<!-- figures: NAME -->` and `<!-- end of figures -->` stands what the function NAME of the files beside this
one makes of the recorded results. A test compares, so no figure is typed by hand, and a new measurement has to be
followed by a run of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import costs
import in_use
import learned
import right
from records import RESULTS, ROOT, load

PAGES = ("README.md", "docs/*.md", "docs/howto/*.md", "benchmarks/results/README.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def main() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(path.relative_to(ROOT))


def pages() -> list[Path]:
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def written(text: str) -> str:
    """A page with its figures as they are recorded now."""
    return BLOCK.sub(lambda match: f"{match[1]}{FIGURES[match[2]]()}\n{match[3]}", text)


def machine(name: str) -> str:
    at = load(name)["machine"]
    threads = "1 thread" if at["threads"] == 1 else f"{at['threads']} threads"
    return f"{at['processor']}, {threads}, torch {at['torch']}, Python {at['python']}, {at['date']}"


def machines() -> str:
    found: dict[str, list[str]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        if "machine" in load(path.stem):
            found.setdefault(machine(path.stem), []).append(f"`{path.stem}`")
    return "\n".join(f"- {where}: {', '.join(names)}" for where, names in found.items())


TABLES = (machines, *costs.TABLES, *right.TABLES, *learned.TABLES, *in_use.TABLES)
FIGURES: dict[str, Callable[[], str]] = {table.__name__: table for table in TABLES}

if __name__ == "__main__":
    main()
