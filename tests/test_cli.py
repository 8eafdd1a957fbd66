"""Command lines that ask for what cannot be had name what was typed, before anything is computed."""

import pytest
from typer.testing import CliRunner

from polyattn.cli import app


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("plan nl --sizes n=784,c=64", ["'n'", "'c'", "C and N"]),
        ("plan nl --sizes N=784,C=64,Q=2", ["'Q'", "N, C"]),
        ("tables --paper foo", ["'foo'", "bat or poly_nl"]),
        ("tables --table 77", ["'77'"]),
        ("prove nl nl --json nowhere/verdict.json", ["--json", "'nowhere'"]),
        ("report nl --out nowhere/page.html", ["--out", "'nowhere'"]),
        ("study nl --sizes N=4,C=3 --out nowhere/costs.csv", ["--out", "'nowhere'"]),
        ("study nl --sizes N=4,C=3 --out .", ["--out", "is a folder"]),
    ],
)
def test_errors_name_the_argument_and_the_value(line, named, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert all(part in result.stderr for part in named), result.stderr
    assert not result.stdout


def test_every_command_s_summary_fits_its_line():
    commands = CliRunner().invoke(app, ["--help"]).stdout.partition("Commands:")[2]
    assert commands
    assert "..." not in commands
