"""Tests with one edit in a copy of the project, each run in a process forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.edits import ROOT, Edit

PASSED, FAILED = 0, 1
"""pytest's exit status; any other says that no test ran to its end."""

# Importing torch takes longer than most tests: a server imports what polyattn needs, and each run is forked from it.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "pytest", "sympy", "scipy.sparse", "opt_einsum", "lark"])


def _pytest(tree: str, tests: list[str], output: str) -> None:
    """Run pytest in a copy of the project, as the only thing that this process does."""
    os.setsid()  # so that the processes of tests end with this one
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(tree)
    sys.dont_write_bytecode = False  # so that what no edit changes is compiled once in each copy
    os.environ["PYTHONPATH"] = tree  # before the editable install, for the processes of tests
    sys.path[:] = [tree, *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
        del sys.modules[name]

    import pytest

    sys.exit(int(pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests])))


def run_tests(tree: Path, tests: Iterable[str], limit: float) -> tuple[int | None, str]:
    """Run tests on a copy of the project.

    Returns:
        pytest's exit status, None where the limit passed, and the end of its output.
    """
    output = tree / "output-of-tests"
    process = SERVER.Process(target=_pytest, args=(str(tree), list(tests), str(output)))
    process.start()
    process.join(limit)
    if process.exitcode is None:
        os.killpg(process.pid, 9)
        process.join()
        return None, ""
    return process.exitcode, "\n".join(output.read_text(errors="replace").splitlines()[-12:])


def forget_byte_code(source: Path) -> None:
    """Remove the byte code of a source, recognised by time and length, which an edit may leave as they are."""
    for file in (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc"):
        file.unlink()


def try_edit(tree: Path, edit: Edit, limit: float) -> tuple[str, str]:
    """Put one edit into a copy, run its tests, take it out again.

    Returns:
        "killed", "survived" or "broken", and pytest's output where it broke.
    """
    path = tree / edit.file
    source = path.read_text(encoding="utf-8")
    forget_byte_code(path)
    path.write_text(edit.applied(source), encoding="utf-8")
    try:
        status, output = run_tests(tree, edit.tests, limit)
    finally:
        path.write_text(source, encoding="utf-8")
        forget_byte_code(path)
    if status in (FAILED, None):
        return "killed", ""
    return ("survived", "") if status == PASSED else ("broken", output)
