"""Texts of pictures do not cover each other, whatever is drawn: found by the boxes of all that is written."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from polyattn import SizeError, catalog, plan
from polyattn.study import Study, complexity, pictures

MANY = ("nl", "poly_nl", "e_nl", "latent_gnn", "glore", "a2_net", "cgnl", "cp_nl", "tt_nl", "tucker_nl")
RANKS: dict[str, Any] = {"R": 4, "V": 6, "G": 2, "M": 4, "D": 8, "K": 3, "S": 5}


@cache
def study(kind: str) -> Study:
    if kind == "many layers":
        return complexity(MANY, orders=["planned"], cost="macs", N=[4, 25, 196], C=8, **RANKS)
    if kind == "many points":
        return complexity(["nl", "poly_nl"], orders=["planned"], cost="macs", N="49:50176:12", C=64)
    if kind == "one decade":
        return complexity("nl", cost="macs", N=[30, 31], C=8)
    if kind == "panels":
        return complexity(["nl", "poly_nl"], orders=["planned"], cost="macs", N="16:256", C=[8, 32, 64])
    layers = {"nl": "nl", "a 1x1 convolution": nn.Conv2d(8, 8, 1)}
    return complexity(layers, "training", cost="macs", N=[16, 64], C=8)


KINDS = ("many layers", "many points", "one decade", "panels", "a module")


def boxes(figure: Figure) -> dict[str, Any]:
    """The boxes of all written texts in pixels, the ends of axes aside, which are not drawn."""
    FigureCanvasAgg(figure).draw()
    found = {}
    for number, text in enumerate(figure.findobj(Text)):
        assert isinstance(text, Text)
        if text.get_text().strip() and text.get_visible() and _drawn(text):
            found[f"{number} {text.get_text()!r}"] = text.get_window_extent()
    return found


def _drawn(text: Text) -> bool:
    """Test if a label belongs to a tick within its axis' limits, or to none."""
    axes = text.axes
    if axes is None or not axes.axison:
        return axes is None or text in axes.texts
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if text in (tick.label1, tick.label2):
                return low * (1 - 1e-9) <= tick.get_loc() <= high * (1 + 1e-9)
    return True


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    known = boxes(figure)
    return [(a, b) for a, b in combinations(known, 2) if known[a].padded(-0.5).overlaps(known[b].padded(-0.5))]


def test_texts_over_each_other_are_found():
    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.51, "two")
    assert overlaps(figure)


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        *(("curves", kind) for kind in KINDS),
        *((picture, "many layers") for picture in ("peak", "roofline", "pareto")),
        *((picture, "one decade") for picture in ("roofline", "pareto")),
        ("heat", "panels"),
        ("heat", "one decade"),
    ],
)
def test_no_text_of_a_figure_covers_another(picture: str, kind: str):
    found = study(kind)
    if picture == "heat":
        if len(found.varied) != 2:
            with pytest.raises(SizeError, match="two sizes vary"):
                pictures.heat_map(found)
            return
        figure = pictures.heat_map(found)
    elif picture == "pareto":
        figure = pictures.pareto(found, lambda case: case.flops_per_byte, "FLOPs per byte")
    elif picture == "roofline":
        figure = pictures.roofline(found, points={"my kernel": (3.0, 2e9)})
    else:
        figure = pictures.cost_curves(found, "macs" if picture == "curves" else "step_peak_bytes")
    assert overlaps(figure) == []
    width, height = figure.get_size_inches()
    assert max(width, height) < 20


@pytest.mark.parametrize("name", ["poly_nl", "multi_head"])
def test_no_text_of_a_network_or_a_tree_covers_another(name: str):
    spec = catalog.get(name)
    made = plan(spec, {n: {"H": 4, "W": 6, "N": 24, "C": 8}.get(n, 2) for n in spec.sizes.atomic}, cost="macs")
    for figure in (pictures.tensor_network(spec), pictures.contraction_tree(made)):
        assert overlaps(figure) == []


def test_a_heat_map_has_the_ratio_of_two_layers():
    found = study("panels")
    maps = [a for a in pictures.heat_map(found).axes if a.images]
    assert [a.get_title(loc="left") for a in maps] == ["nl", "poly_nl", "nl / poly_nl"]
    values = [np.asarray(a.images[0].get_array()) for a in maps]
    np.testing.assert_allclose(values[2], values[0] / values[1])
    (case,) = [c for c in found.cases if c.layer == "nl" and dict(c.point) == {"N": 64, "C": 32}]
    assert values[0][2, 1] == case.macs
    with pytest.raises(SizeError, match="0 somewhere"):
        pictures.heat_map(found, "kept_bytes")


def test_the_front_of_a_pareto_plot_is_what_no_other_beats():
    found = study("many layers")
    score = {name: float(k % 4) for k, name in enumerate(MANY)}
    (axes,) = pictures.pareto(found, score, "score").axes
    line = axes.lines[-1]
    front = set(zip(*line.get_data(), strict=True))
    points = [(c.macs, score[c.layer]) for c in found.cases]
    best = {(x, y) for x, y in points if not any(u <= x and v >= y and (u, v) != (x, y) for u, v in points)}
    assert front == best
    with pytest.raises(SizeError, match="not a layer of the study"):
        pictures.pareto(found, {"resnet": 1.0}, "score")


def test_a_point_of_ones_own_stands_on_the_roofline():
    figure = pictures.roofline(study("one decade"), points={"mine": [(3.0, 2e9), (4.0, 3e9)]})
    (line,) = [n for n in figure.axes[0].lines if "mine" in str(n.get_label())]
    assert list(zip(*line.get_data(), strict=True)) == [(3.0, 2e9), (4.0, 3e9)]
    for wrong in ((3.0, -1.0), "fast", [(1.0, float("inf"))]):
        with pytest.raises(SizeError, match="`points` of 'mine'"):
            pictures.roofline(study("one decade"), points={"mine": wrong})  # pyright: ignore[reportArgumentType]
