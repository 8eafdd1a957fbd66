"""`polyattn bench`: the repository's benchmarks by name."""

from __future__ import annotations

import runpy
import subprocess
import sys

from typer.testing import CliRunner

from polyattn.cli import app


def test_the_package_is_the_command_too():
    said = subprocess.run([sys.executable, "-m", "polyattn", "show", "nl"], capture_output=True, text=True, check=True)
    assert "y[a,b] = x[a,d]*wf[d,f]*x[e,f]*x[e,h]*wg[h,b]" in said.stdout


def test_bench_lists_the_benchmarks():
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 0
    assert {"figure2", "gpu", "macs"} <= set(result.output.replace(",", "").split())


def test_bench_refuses_a_name_that_is_none_and_lists_those_that_are():
    result = CliRunner().invoke(app, ["bench", "figure3"])
    assert result.exit_code == 2
    assert "there is no benchmark 'figure3'; there are" in result.output


def test_bench_gives_the_rest_of_the_line_to_the_benchmark(monkeypatch):
    seen = []
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: seen.append((path, run_name, sys.argv)))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert CliRunner().invoke(app, ["bench", "figure2", "--device", "cuda", "--quick"]).exit_code == 0
    ((path, name, arguments),) = seen
    assert path.endswith("benchmarks/figure2.py")
    assert (name, arguments[1:]) == ("__main__", ["--device", "cuda", "--quick"])
