"""`polyattn study`: the table, the formulas and the figure on the command line."""

from typer.testing import CliRunner

from polyattn.cli import app


def run(*words: str):
    return CliRunner().invoke(app, ["study", *words])


def test_study_prints_the_table_and_the_formulas_and_writes_the_figure(tmp_path):
    out = tmp_path / "curves.svg"
    result = run("poly_nl", "nl", "--sizes", "N=16:64,C=8", "--formulas", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert "one forward pass, C=8" in result.output
    assert "3*B*C**2*N + 2*B*C*N" in result.output
    assert out.read_text().startswith("<?xml")


def test_study_writes_all_that_it_counted_as_a_table(tmp_path):
    out = tmp_path / "all.csv"
    assert run("x[N,C]; y[a,b] = x[a,d]*w[d,b]", "--sizes", "N=4:8,C=2", "-o", str(out)).exit_code == 0
    head, *rows = out.read_text().splitlines()
    assert head.startswith("layer,order,strategy,N,C,macs")
    assert len(rows) == 6


def test_study_refuses_what_it_cannot_do_before_it_counts(tmp_path):
    for words, message in (
        (("nl", "--sizes", "N=4,C"), "`--sizes`: got 'C'"),
        (("nl", "--sizes", "N=4,N=5"), "gives N twice"),
        (("nl", "--sizes", "N=4:8,C=2", "-o", str(tmp_path / "a.jpg")), "not as 'a.jpg'"),
        (("nl", "--sizes", "N=4:8"), "missing size: C"),
        (("nope", "--sizes", "N=4:8"), "no attention 'nope'"),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert message in result.output


def test_study_draws_another_picture_and_checks_it_before_it_counts(tmp_path):
    out = tmp_path / "map.svg"
    words = ("nl", "--orders", "planned", "--picture", "heat_map", "-o", str(out), "--dtype", "bfloat16")
    assert run(*words, "--sizes", "N=4:8,C=2:4").exit_code == 0
    assert "<svg" in out.read_text()
    for sizes, option, message in (
        ("N=4:8,C=2", (), "needs two sizes"),
        ("N=4:8,C=2:4", ("--picture", "pie"), "expected one of curves"),
        ("N=4:8,C=2:4", ("--dtype", "int8"), "unknown dtype 'int8'"),
    ):
        result = run(*words, "--sizes", sizes, *option)
        assert (result.exit_code, message in result.output) == (2, True), result.output
