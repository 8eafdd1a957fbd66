"""The blocks of README.md, CONTRIBUTING.md and docs/ run as tests: `pytest README.md CONTRIBUTING.md docs`.

A page is one program. A `python` block runs in the page's namespace; what it prints, or the error that ends it, has
to be the `text` block that follows, and a page shows all that its blocks print. In a `console` block the lines with
`$` run, and what follows each is its output. `...` in an output stands for any text. Other blocks say something that
is not run; `<!-- skip: next "why" -->` leaves out the block after it.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

ROOT = Path(__file__).parent
SEEN = ("proofs", "examples", "benchmarks")
"""Folders of the repository that commands of a page find where they run."""

fences = RawFencedCodeBlockLexer(re.compile(r"(?P<language>\w+)[^\n]*\n"))


def blocks(document: Document) -> Iterator[Region]:
    """The blocks that run, each python block with the text block that follows it."""
    for region, following in pairwise([*fences(document), None]):
        assert region is not None
        language = region.lexemes["language"]
        if language == "python":
            shown = following if following is not None and following.lexemes["language"] == "text" else None
            between = document.text[region.end : shown.start].strip() if shown is not None else ""
            output = None if shown is None else str(shown.lexemes["source"])
            region.parsed = (region.lexemes["source"], output, len(between) < 40)
            region.evaluator = run_python
            yield region
        elif language == "console":
            region.parsed = region.lexemes["source"]
            region.evaluator = run_console
            yield region


def run_python(example: Example) -> None:
    source, shown, adjacent = example.parsed
    code = compile("\n" * (example.line + source.line_offset) + source, example.path, "exec", dont_inherit=True)
    printed = io.StringIO()
    with folder_of(example), contextlib.redirect_stdout(printed):
        try:
            exec(code, example.namespace)
        except Exception as error:
            last = "".join(traceback.format_exception_only(error))
            name = f"{type(error).__module__}.{type(error).__qualname__}: "
            if shown is None or not any(line.startswith((type(error).__name__, name)) for line in shown.splitlines()):
                raise
            print(last if name in shown else last.replace(name, f"{type(error).__name__}: "))
    if printed.getvalue() and shown is None:
        raise AssertionError(f"this block prints what the page does not show:\n{printed.getvalue()}")
    if shown is not None and (printed.getvalue() or adjacent):
        compare(shown, printed.getvalue())


def run_console(example: Example) -> None:
    with folder_of(example):
        for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            while command.endswith("\\"):
                more, _, shown = shown.partition("\n")
                command = command[:-1] + more
            compare(shown, answer(shlex.split(command, comments=True)))


def answer(words: list[str]) -> str:
    """What a command prints on both streams; `polyattn` runs in this process, which has torch already."""
    if words[0] == "polyattn":
        from typer.testing import CliRunner

        from polyattn.cli import app

        result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        return result.output
    words[0] = {"python": sys.executable, "echo": shutil.which("echo"), "cat": shutil.which("cat")}[words[0]] or ""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    return run.stdout


@contextlib.contextmanager
def folder_of(example: Example) -> Iterator[None]:
    """A folder for what a page writes, the same for all of its blocks."""
    with contextlib.chdir(example.namespace["_folder"]):
        yield


def compare(shown: str, printed: str) -> None:
    want, have = (text_of(text) for text in (shown, printed))
    checker, options = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.REPORT_NDIFF
    if not checker.check_output(want, have, options):
        raise AssertionError(checker.output_difference(doctest.Example("", want), have, options))


def text_of(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().lstrip("\n").splitlines()) + "\n"


def begin(namespace: dict[str, Any]) -> None:
    import torch

    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp(prefix="polyattn-docs-"))
    for name in SEEN:
        (folder / name).symlink_to(ROOT / name)
    namespace |= {"_folder": folder, "__name__": "__page__"}


def end(namespace: dict[str, Any]) -> None:
    shutil.rmtree(namespace["_folder"])


pytest_collect_file = Sybil(
    parsers=[blocks, SkipParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md"],
    path=str(ROOT),
    setup=begin,
    teardown=end,
).pytest()
