"""The lists of edits beside this file, one for each stage, and the check that they fit the sources."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = Path(__file__).parent


@dataclass(frozen=True)
class Edit:
    """One fault put into one line, and the tests that have to notice it.

    Attributes:
        stage: name of the list.
        breaks: the promise that the fault breaks.
        file: path of the source from the project's root.
        old: a text that occurs once in the source.
        new: the text in its place.
        tests: files or node ids for pytest, the likeliest to fail first.
    """

    stage: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r} ({self.breaks})"

    def applied(self, source: str) -> str:
        """Return the source with the fault in it."""
        return source.replace(self.old, self.new)


def read(words: tuple[str, ...] = (), lists: Path = LISTS) -> list[Edit]:
    """Read all edits; with words, those whose list or file has one of them in its name."""
    edits = [
        Edit(path.stem, table["breaks"], file, table["old"], table["new"], tuple(table["tests"]))
        for path in sorted(lists.glob("*.toml"))
        for file, tables in tomllib.loads(path.read_text(encoding="utf-8")).items()
        for table in tables
    ]
    return [e for e in edits if not words or any(word in f"{e.stage} {e.file}" for word in words)]


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def stale(edit: Edit, root: Path = ROOT) -> str:
    """Return the reason why an edit does not fit the sources or the tests; "" if it does."""
    source = _text(root / edit.file)
    if not source:
        return f"{edit.file} does not exist"
    if source.count(edit.old) != 1:
        return f"{edit.old!r} occurs {source.count(edit.old)} times in {edit.file}, not once"
    if edit.old == edit.new:
        return f"{edit.new!r} changes nothing"
    try:
        compile(edit.applied(source), edit.file, "exec")
    except SyntaxError as error:
        return f"{edit.file} with {edit.new!r} in it does not parse: {error}"
    if not edit.tests:
        return "no test is named"
    for test in edit.tests:
        path, _, name = test.partition("::")
        if not re.search(
            rf"def {re.escape(name.rpartition('::')[2].partition('[')[0])}\b" if name else ".", _text(root / path)
        ):
            return f"there is no test {test}"
    return ""
