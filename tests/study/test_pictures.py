"""Facts of the pictures: what is drawn, that it says the same in grey, and that nothing a user writes is markup."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import polyattn as pa
from polyattn import catalog
from polyattn.lowering import plan
from polyattn.study import complexity, pictures
from polyattn.study.pictures.layout import places
from polyattn.study.pictures.panels import Panel, panels
from polyattn.study.pictures.style import COLOURS, LINES, MARKERS

SIZES = {"N": 48, "C": 8, "R": 3, "V": 2, "H": 8, "W": 6, "G": 2, "K": 3}
"""Enough for every layer used here."""


def plan_of(name: str, objective: str = "forward"):
    spec = catalog.get(name)
    return plan(spec, {n: SIZES[n] for n in spec.sizes.names if n in SIZES}, objective)


def tensors(panel: Panel) -> list[str]:
    return sorted(v.label for v in panel.vertices if v.kind not in ("dot", "free"))


def test_nl_is_a_chain_in_the_authors_letters():
    (panel,) = panels(catalog.nl())
    assert tensors(panel) == ["wf", "wg", "x", "x", "x"]
    named = {e.index: {panel.vertices[v].label for v in e.ends} for e in panel.edges}
    assert named == {
        "a": {"x", "a"}, "d": {"x", "wf"}, "f": {"wf", "x"}, "e": {"x"}, "h": {"x", "wg"}, "b": {"wg", "b"}
    }  # fmt: skip


def test_the_channel_that_four_tensors_of_poly_nl_share_is_a_dot():
    (panel,) = panels(catalog.poly_nl())
    (dot,) = [k for k, v in enumerate(panel.vertices) if v.kind == "dot"]
    met = sorted(panel.vertices[min(e.ends)].label for e in panel.edges if dot in e.ends)
    assert met == ["w1", "w2", "w3", "x"]
    assert panel.title == "y = 1/N ×"


def test_an_identity_is_a_dot_with_two_ends():
    (panel,) = panels(pa.Spec("x[N,C]; y[a,b,c] = x[a,d]*I[b,c]; where b, c : C"))
    kinds = [v.kind for v in panel.vertices]
    assert kinds.count("dot") == 2  # the identity, and d, which is summed alone
    assert sorted(v.label for v in panel.vertices if v.kind == "free") == ["a", "b", "c"]


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_every_access_of_every_product_is_a_vertex(name: str):
    spec = catalog.get(name)
    shown = panels(spec)
    assert len(shown) == len(spec.polynomial().terms)
    for panel, term in zip(
        sorted(shown, key=tensors),
        sorted(spec.polynomial().terms, key=lambda t: sorted(f.tensor for f in t.factors)),
        strict=True,
    ):
        assert tensors(panel) == sorted(f.tensor for f in term.factors if f.indices)


def test_a_function_has_panels_of_its_own():
    shown = panels(catalog.nl(softmax=True))
    assert any("softmax" in p.title for p in shown)
    assert any(v.kind == "value" for p in shown for v in p.vertices)


def test_more_products_than_there_is_room_for_are_refused():
    factors = "*".join(f"(x[a,b] + {name}[b])" for name in "pqrstu")
    with pytest.raises(pa.BudgetError, match="room for 24"):
        pictures.tensor_network(f"x[N,C]; y[a,b] = {factors}")


@pytest.mark.parametrize("name", ["nl", "poly_nl", "ba_transform", "criss_cross"])
def test_no_two_vertices_are_drawn_over_each_other(name: str):
    for panel in panels(catalog.get(name)):
        here = places(len(panel.vertices), [e.ends for e in panel.edges])
        assert min(np.hypot(*(a - b)) for a, b in combinations(here, 2)) > 0.5
        np.testing.assert_array_equal(here, places(len(panel.vertices), [e.ends for e in panel.edges]))


def test_colours_of_one_picture_differ_in_grey_or_by_marker_and_line():
    looks = {(c, m) for c, m in zip(COLOURS, MARKERS, strict=True)}
    assert len(looks) == len(COLOURS) == len(set(MARKERS))
    assert len({str(line) for line in LINES}) == len(LINES)
    grey = [float(np.dot(to_rgb(c), (0.299, 0.587, 0.114))) for c in COLOURS[:3]]
    assert all(0 <= g < 0.75 for g in grey)  # dark enough on white


def test_curves_mark_where_the_authors_order_is_overtaken():
    figure = complexity("poly_nl", orders=["as written", "planned"], cost="macs", N="4:256", C=16).plot()
    (axes,) = figure.axes
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"as written", "planned"}
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_a_crossing_is_marked_where_two_layers_cost_the_same():
    maps = "x[N,C]; s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b]"
    gram = "x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]"
    study = complexity({"maps": maps, "gram": gram}, orders=["as written"], N=[8, 16, 64, 128], C=32)
    (axes,) = study.plot(orders=["as written"]).axes
    (ring,) = [line for line in axes.lines if line.get_fillstyle() == "none"]
    np.testing.assert_allclose(ring.get_xdata(), [32], rtol=1e-9)  # N = C, 2·N·N·C against 2·N·C·C
    assert [t.get_text() for t in axes.texts] == ["N = 32"]


def test_a_tree_says_which_step_is_symmetric():
    made = plan("x[N,C]; s[d,f] = x[e,d]*x[e,f]; y[a,b] = x[a,d]*s[d,b]", {"N": 9, "C": 4}, "as_written")
    (axes,) = pictures.contraction_tree(made).axes
    (gram,) = [t for t in axes.texts if "symmetric" in t.get_text()]
    assert gram.get_text().startswith("t1[")
    assert gram.get_bbox_patch().get_linestyle() == "--"


def test_a_tree_says_what_each_step_takes_and_which_are_shared():
    made = plan_of("glore")
    (axes,) = pictures.contraction_tree(made).axes
    texts = [t.get_text() for t in axes.texts]
    for step in made.steps:
        assert sum(t.startswith(f"{step.name}[") for t in texts) == 1
    assert any("shared by 2 steps" in t for t in texts)
    assert any(t.startswith("x") for t in texts)


def test_a_training_plan_has_a_tree_of_its_backward_pass():
    made = plan_of("poly_nl", "training")
    (axes,) = pictures.contraction_tree(made, "backward").axes
    assert "dy" in [t.get_text() for t in axes.texts]
    with pytest.raises(pa.SizeError, match="no planned backward pass"):
        pictures.contraction_tree(plan_of("poly_nl"), "backward")


def test_the_pattern_of_nl_is_black_where_its_tensor_is_not_zero():
    spec = catalog.nl()
    figure = pictures.sparsity(spec, {"N": 2, "C": 2})
    tensor = spec.interaction_tensor(
        {"N": 2, "C": 2}, {n: np.random.default_rng(0).random((2, 2)) + 1 for n in ("wf", "wg")}
    )
    assert len(figure.axes) == 4
    for k, axes in enumerate(figure.axes):
        own = (2 * k, 2 * k + 1)
        unfolded = np.moveaxis(tensor, own, (0, 1)).reshape(4, -1) != 0
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), unfolded)
    same = pictures.sparsity(tensor)
    np.testing.assert_array_equal(*(np.asarray(f.axes[2].images[0].get_array()) for f in (figure, same)))


def test_every_layer_is_a_point_under_the_roof():
    study = complexity(["nl", "poly_nl"], N=[64, 1024], C=32)
    (axes,) = pictures.roofline(study).axes
    roof, *layers = axes.lines
    assert {line.get_label() for line in layers} == {"nl", "poly_nl"}
    device = study.device
    for line in layers:
        for intensity, rate in zip(*line.get_data(), strict=True):
            assert rate <= min(2 * device.macs_per_second, intensity * device.bytes_per_second) * (1 + 1e-9)
    assert max(roof.get_ydata()) == 2 * device.macs_per_second


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_figure_is_saved_the_same_every_time(tmp_path, suffix: str):
    made = [
        pictures.save(pictures.tensor_network(catalog.nl()), tmp_path / f"{k}{suffix}").read_bytes() for k in (1, 2)
    ]
    assert made[0] == made[1]
    with pytest.raises(pa.PolyattnError, match=r"not as 'a\.jpg'"):
        pictures.save(Figure(), tmp_path / "a.jpg")


LONG = "w" * 3000
ENDLESS = (
    f"x[N,C]; y[a,b] = x[a,d]*{LONG}[d,b]",
    f"x[N,C]; y[a,b] = {LONG}*x[a,b]",
    f"x[{LONG.upper()},C]; y[a,b] = x[a,b]",
    f"x[N,C]; y[a,{LONG}] = x[a,{LONG}]",
    ";".join(f"x{k}[N{k}]" for k in range(20)) + ";y[i0] = " + "*".join(f"x{k}[i{k}]" for k in range(20)),
    "x[N,C]; y[a,b] = " + "*".join(f"s{k}" for k in range(60)) + "*x[a,b]",
)


@pytest.mark.parametrize("text", ENDLESS, ids=["tensor", "scalar", "size", "index", "many", "scalars"])
def test_names_longer_than_any_picture_do_not_push_it_out_of_its_page(text: str):
    spec = pa.Spec(text)
    made = plan(spec, dict.fromkeys(spec.sizes.names, 2), "as_written")
    for figure in (pictures.tensor_network(spec), pictures.contraction_tree(made)):  # a warning is an error here
        drawn = ElementTree.fromstring(pictures.svg(figure, outlines=False))
        words = ["".join(e.itertext()) for e in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert words
        assert not any(LONG in word for word in words)


def test_boxes_of_a_tree_do_not_overlap():
    for name in ("glore", "tesa", "ba_transform"):
        (axes,) = pictures.contraction_tree(plan_of(name)).axes
        axes.figure.canvas.draw()
        boxes = [t.get_window_extent() for t in axes.texts]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_svg_is_well_formed_and_carries_names_as_text():
    study = complexity({"<b>$\\alpha$&": catalog.nl(), "other": catalog.poly_nl()}, N=[4, 8], C=2)
    text = pictures.svg(study.plot(orders=["planned"]), outlines=False)
    ElementTree.fromstring(text)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert not re.search(r"<script|javascript:", text)


def test_a_study_without_a_sweep_has_no_curves():
    with pytest.raises(pa.SizeError, match="no size varies"):
        complexity("nl", N=4, C=2).plot()


def test_intermediates_stay_where_the_expansion_has_more_products():
    text = "x[N,C]; where d : D; q[a,d] = elu(x[a,c]*w[c,d]) + 1; z[a] = q[a,d]*q[e,d]"
    titles = [panel.title for panel in panels(pa.Spec(f"{text}; y[a,b] = q[a,d]*q[e,d]*x[e,b] / z[a]"))]
    assert [title.split()[0] for title in titles if "=" in title][-2:] == ["over1", "y"]
    assert len(titles) < 8
