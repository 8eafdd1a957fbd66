"""The page of the atlas in a browser: search, zoom, keys and details, with nothing logged and nothing sent."""

import re

import pytest

from polyattn.study.atlas import write_page
from polyattn.study.atlas.costs import costs
from polyattn.study.atlas.layout import layout
from tests.study.test_in_browser import Watched, contrast


@pytest.fixture(scope="module")
def file(atlas, tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    counted = {name: costs(layer.spec) if name == "poly_nl" else None for name, layer in atlas.layers.items()}
    write_page(atlas, path, counted=counted)
    return path


@pytest.fixture
def watched(browser, file):
    made = Watched(browser, file.as_uri(), 1280)
    yield made
    made.context.close()
    assert made.messages == []


def test_boxes_do_not_overlap_and_edges_lead_down(atlas):
    found = layout(atlas)
    for k, a in enumerate(found.boxes):
        for b in found.boxes[k + 1 :]:
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
            assert apart, (a.names, b.names)
    places = {name: box for box in found.boxes for name in box.names}
    assert all(places[line.edge.first].y < places[line.edge.second].y for line in found.lines)
    assert sorted(places) == sorted(atlas.layers)


def test_a_name_opens_its_layer_and_an_arrow_its_proof(watched):
    page = watched.page
    page.locator("[data-layer=poly_nl]").click()
    section = page.locator(".detail:visible")
    assert section.locator("h2").text_content() == "Poly-NL"
    assert section.locator("math").count() == 1
    assert section.locator("svg.cost polyline").count() == 2
    section.get_by_role("link", name="cp_nl").click()
    page.locator(".detail:visible").get_by_role("link", name="poly_nl").first.click()
    assert "wq[c,c1] = I[c,c1]" in page.locator(".detail:visible").text_content()
    page.locator(".line[data-to=poly_nl]").focus()
    page.keyboard.press("Enter")
    shown = page.locator(".detail:visible")
    assert "equal at every size" in shown.locator("pre").text_content()
    assert shown.locator("a[download]").get_attribute("download") == "cp_nl--poly_nl.json"


def test_search_dims_the_others_and_enter_opens_the_first(watched):
    page = watched.page
    page.get_by_label("Search").fill("poly")
    assert page.locator("[data-layer].dim").count() == 4
    assert page.locator("[data-found]").text_content() == "1 of 5 layers"
    page.get_by_label("Search").press("Enter")
    assert page.locator(".detail:visible h2").text_content() == "Poly-NL"


def test_the_picture_zooms_and_moves_by_buttons_keys_and_dragging(watched):
    page = watched.page

    def view():
        return [float(n) for n in page.locator("#picture").get_attribute("viewBox").split()]

    whole = view()
    page.get_by_role("button", name="Zoom in").click()
    assert view()[2] < whole[2]
    page.locator("#picture").focus()
    before = view()
    page.keyboard.press("ArrowRight")
    assert view()[0] > before[0]
    page.keyboard.press("0")
    assert view() == whole
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 60, steps=3)
    page.mouse.up()
    assert view()[0] < whole[0]
    page.mouse.wheel(0, 300)
    page.wait_for_function(
        "w => +document.getElementById('picture').getAttribute('viewBox').split(' ')[2] > w", arg=whole[2]
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_names_are_readable_at_once_and_a_found_one_is_in_sight(browser, file, width):
    made = Watched(browser, file.as_uri(), width)
    heights = made.page.locator("#picture text").evaluate_all("all => all.map((t) => t.getBoundingClientRect().height)")
    assert min(heights) >= 11
    made.page.get_by_label("Search").fill("pi_net_ccp")
    made.page.get_by_label("Search").press("Enter")
    text, picture = (made.page.locator(s).bounding_box() for s in ("[data-layer=pi_net_ccp] text", "#picture"))
    made.context.close()
    assert picture["x"] <= text["x"]
    assert text["x"] + text["width"] <= picture["x"] + picture["width"]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_the_page_fits_and_text_stands_out(browser, file, width, scheme):
    made = Watched(browser, file.as_uri(), width, scheme)
    made.page.locator("[data-layer=poly_nl]").focus()
    made.page.keyboard.press("Enter")
    inner, scrolled = made.page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert scrolled <= inner == width
    ink, paper = made.page.evaluate(
        """() => [getComputedStyle(document.querySelector(".box text")).fill,
                  getComputedStyle(document.querySelector(".box rect")).fill]"""
    )
    assert contrast(ink, paper) >= 4.5
    assert re.match(r"rgb", paper)
    made.context.close()
    assert made.messages == []
