"""Studies from arrays, helper sizes and options; formulas as numbers; titles, ticks and rings that are true."""

from __future__ import annotations

import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from polyattn import SizeError, catalog, plan
from polyattn.cli import app
from polyattn.study import complexity

MAPS = "x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]"
GRAM = "x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]"


@pytest.mark.parametrize(
    "numbers", [np.array([4, 9]), np.array([[4], [9]], dtype=np.int16), torch.tensor([4, 9]), range(4, 10, 5), (4, 9)]
)
def test_arrays_of_numpy_and_torch_are_sweeps(numbers: Any):
    found = complexity("nl", N=numbers, C=np.int64(8), B=torch.tensor(2), orders=["planned"])
    assert [dict(c.point) for c in found.cases] == [{"N": n, "C": 8, "B": 2} for n in (4, 9)]
    with pytest.raises(SizeError, match="positive whole number"):
        complexity("nl", N=np.array([4.5]), C=8)


def test_sizes_that_no_layer_has_may_make_those_of_one():
    found = complexity("nl", H=[4, 8], W="H", N="H*W", C=8, orders=["planned"])
    assert [c.plan.sizes["N"] for c in found.cases] == [16, 64]
    assert found.changing == ("H", "W", "N")
    with pytest.raises(SizeError, match="no layer has a size 'Q'"):
        complexity("nl", Q=4, N=4, C=8)


def test_titles_and_columns_say_the_sizes_of_every_row():
    """W follows H: it stands in each row, and not in the title."""
    found = complexity("axial", H=[4, 8], W="H", C=8, R=2, orders=["planned"])
    head, line, *rows = str(found).splitlines()
    assert "W=" not in head
    assert "C=8, R=2" in head
    assert line.split()[:4] == ["layer", "order", "H", "W"]
    assert [row.split()[2:4] for row in rows[1:]] == [["4", "4"], ["8", "8"]]


def test_candidates_of_a_study_can_be_timed():
    found = complexity("nl", N=8, C=4, cost="measured", orders=["planned"])
    assert found.cases[0].macs > 0


@pytest.mark.parametrize("name", ["poly_nl", "cgnl", "ba_transform"])
def test_formulas_as_numbers_are_the_counts_of_the_plan(name: str):
    sizes = {"N": 49, "H": 6, "W": 4, "C": 8, "G": 2, "M": 4, "K": 2, "D": 8, "R": 3}
    spec = catalog.get(name)
    given = {n: v for n, v in sizes.items() if n in spec.sizes.names}
    case = complexity(spec, "training", B=3, orders=["planned"], **given).cases[0]
    (formulas,) = complexity(spec, "training", B=3, orders=["planned"], **given).formulas.popitem()[1]
    at = {n: v for n, v in {"B": 3, **sizes}.items() if n in {str(s) for s in formulas.macs.free_symbols} | {"B"}}
    for quantity in ("parameters", "peak_bytes", "kept_bytes", "traffic_bytes"):
        at |= {str(s): sizes[str(s)] for s in getattr(formulas, quantity).free_symbols if str(s) != "B"}
    found = formulas.at(**at)
    for quantity in ("macs", "traffic_bytes", "peak_bytes", "kept_bytes", "parameters", "flops_per_byte"):
        assert found[quantity] == getattr(case, quantity.replace("peak", "step_peak")), quantity
    start = time.process_time()
    for _ in range(100):
        formulas.at(**at)
    assert time.process_time() - start < 2  # sympy's substitution takes tenths of a second each


def test_formulas_as_numbers_refuse_sizes_that_they_lack():
    (formulas,) = complexity("poly_nl", N=4, C=4, orders=["as written"]).formulas["poly_nl"]
    # One multiply-accumulate for each N C² of three products, and two for each N C: by hand.
    assert formulas.at(N=196, C=64)["macs"] == 3 * 196 * 64**2 + 2 * 196 * 64
    assert formulas.at(N=np.int64(2**40), C=2**20)["macs"] == 3 * 2**80 + 2 * 2**60
    for wrong, message in (
        ({"N": 4}, "size C is missing"),
        ({"N": 4, "C": 4, "Q": 1}, "no formula has a size 'Q'"),
        ({"N": 0, "C": 1}, "size N must"),
    ):
        with pytest.raises(SizeError, match=message):
            formulas.at(**wrong)


def ring(figure: Any) -> tuple[float, list[str]]:
    (axes,) = figure.axes
    (found,) = [line for line in axes.lines if line.get_fillstyle() == "none"]
    return float(found.get_xdata()[0]), [t.get_text() for t in axes.texts]


@pytest.mark.parametrize("channels", [100, 512])
def test_a_ring_is_at_the_exact_crossing_and_not_on_the_straight_pieces(channels: int):
    """N²C of the map against N C² of the Gram matrix beside a product that both have: equal at N = C."""
    tail = "; z[a,b] = y[a,c]*w[c,b]"
    study = complexity({"maps": MAPS + tail, "gram": GRAM + tail}, orders=["as written"], N=[16, 4096], C=channels)
    assert ring(study.plot(orders=["as written"])) == (channels, [f"N = {channels}"])


def boxes(figure: Any) -> list[tuple[str, Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    # Ticks outside of the axis' limits exist, and are not drawn.
    for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        hidden = {id(t.label1) for t in ticks if not low <= t.get_loc() <= high}
        texts = [t for t in texts if id(t) not in hidden]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in texts if t.get_window_extent(renderer).width > 0]


def test_no_two_texts_of_a_figure_overlap():
    figures = [
        complexity(["poly_nl", "nl", "e_nl"], N="16:65536", C=64, R=8, V=8).plot(),
        complexity("nl", N="49:3136", C=[8, 16], B=2).plot("predicted_seconds"),
        complexity(["axial", "nl"], H=[14, 28, 56], W="H", N="H*W", C=64, R="C/8").plot("peak_bytes"),
    ]
    for figure in figures:
        drawn = boxes(figure)
        lower, upper = figure.axes[0].get_xlim()
        inside = {f"{t:,.0f}" for t in figure.axes[0].get_xticks() if lower <= t <= upper}
        assert inside
        for (a, first), (b, second) in combinations(drawn, 2):
            width = min(first.x1, second.x1) - max(first.x0, second.x0)
            height = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert width <= 1 or height <= 1, (a, b)


def test_a_figure_says_its_fixed_sizes_and_has_ticks_at_the_counted_points():
    figure = complexity("nl", "training", N=[49, 196], C=8, B=2).plot()
    assert figure.get_suptitle() == "one forward and backward pass, C=8, B=2"
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["49", "196"]
    with pytest.raises(SizeError, match="one forward pass keeps nothing"):
        complexity("nl", N=[49, 196], C=8).plot("kept_bytes")


def test_many_layers_and_orders_look_different():
    layers = {f"l{k}": f"x[N,C]; y[a,b] = {k + 2}*x[a,d]*w[d,b]" for k in range(10)}
    (axes,) = (
        complexity(layers, N=[4, 8], C=2, orders=["as written", "planned"]).plot(orders=["as written", "planned"]).axes
    )
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in axes.lines}
    assert len(looks) == len(axes.lines) == 20


def run(*words: str, **options: Any) -> Any:
    return CliRunner().invoke(app, ["study", *words], **options)


def test_two_files_of_one_name_are_two_layers_and_an_equation_may_come_on_the_standard_input(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.txt").write_text(f"x[N,C]; y[a,b] = {2 if folder == 'a' else 3}*x[a,d]*w[d,b]")
    found = run(str(tmp_path / "a/own.txt"), str(tmp_path / "b/own.txt"), "--sizes", "N=4,C=2", "--orders", "planned")
    assert [line.split("  ")[0] for line in found.stdout.splitlines()[3:]] == ["own", "own 2"]
    piped = run("-", "--sizes", "N=4,C=2", input="x[N,C]; y[a,b] = x[a,d]*w[d,b]")
    assert "layer" in piped.stdout
    assert piped.exit_code == 0
    long = "x[N,C]; y[a,b] = x[a,d]*w[d,b]" + " + x[a,d]*w[d,b]" * 30
    assert run(long, "--sizes", "N=4,C=2").exit_code == 0


def test_options_reach_the_study_and_tables_come_in_markdown_latex_and_json(tmp_path: Path):
    rows = tmp_path / "rows.json"
    words = ("poly_nl", "--sizes", "N=4:8,C=2", "--orders", "as written, planned", "--cost", "macs")
    found = run(*words, "--format", "markdown", "--json", str(rows))
    lines = found.stdout.splitlines()
    assert lines[2].startswith("| layer | order | N | MACs |")
    assert len(lines) == 4 + 4
    kept = json.loads(rows.read_text())
    plain = plan(catalog.poly_nl(), {"N": 8, "C": 2}, "as_written").macs
    assert [r["macs"] for r in kept if (r["order"], r["N"]) == ("as written", 8)] == [plain]
    latex = run(*words, "--format", "latex").stdout
    assert r"poly\_nl & as written & 4 &" in latex
    assert latex.rstrip().endswith(r"\end{tabular}")
    # Rows come on the error stream while the study runs.
    assert found.stderr.count("poly_nl") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--quantity", "colour"), "`--quantity`: got 'colour'"),
        (("--format", "html"), "`--format`: got 'html'"),
        (("--orders", "best"), "unknown order 'best'"),
        (("--quantity", "measured_seconds"), "needs `--measure`"),
        (("--json", "/nowhere/rows.json"), "does not exist"),
        (("--device", "abacus"), "abacus"),
    ],
)
def test_every_option_is_checked_before_anything_is_counted(words: tuple[str, ...], message: str):
    found = run("nl", "--sizes", "N=4:8,C=2", *words)
    assert found.exit_code == 2
    assert message in found.output
    assert "as written" not in found.output.replace("there are as written", "")


def test_what_was_counted_before_an_interruption_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):

    module = __import__("sys").modules["polyattn.study.complexity"]
    plain, calls = module.ordered_plan, []

    def stopped(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return plain(*args, **options)

    monkeypatch.setattr(module, "ordered_plan", stopped)
    out = tmp_path / "rows.csv"
    found = run("nl", "--sizes", "N=4:64,C=2", "--orders", "planned", "-o", str(out))
    assert found.exit_code == 130
    assert len(out.read_text().splitlines()) == 3
    assert found.stdout.count("nl ") == 2
