"""Drawings that stand in a page: no scripts, no style attributes, no ids in common."""

import re
import xml.etree.ElementTree as ET

import pytest

import polyattn as pa
from polyattn.study.pictures import contraction_tree, tensor_network
from polyattn.study.report.figures import Picture, picture, standalone

SPEC = pa.Spec("x[N,C]; y[a,b] = 1/N*x[e,h]*w1[h,d]*x[e,f]*w2[f,d]*x[a,d]*w3[d,b]")


@pytest.fixture(scope="module")
def network():
    return ET.fromstring(picture(lambda: tensor_network(SPEC), "first", "a network").svg)


def test_it_is_described_and_fits_its_place(network):
    assert (network.get("role"), network.get("aria-label")) == ("img", "a network")
    assert "width" not in network.attrib
    assert len(network.attrib["viewBox"].split()) == 4


def test_all_tensors_are_in_it_as_text(network):
    words = {"".join(e.itertext()).strip() for e in network.iter("text")}
    assert {"x", "w1", "w2", "w3"} <= words


def test_no_style_no_script_no_link_out(network):
    assert not [e for e in network.iter() if "style" in e.attrib or e.tag in ("script", "style", "metadata", "a")]
    targets = [e.get("href") for e in network.iter() if "href" in e.attrib]
    targets += re.findall(r"url\((.*?)\)", ET.tostring(network, encoding="unicode"))
    ids = [e.get("id") for e in network.iter() if "id" in e.attrib]
    assert targets
    assert {t[1:] for t in targets} <= set(ids)
    assert all(i.startswith("first-") for i in ids)
    assert len(ids) == len(set(ids))


def test_ink_and_paper_follow_the_page(network):
    text = ET.tostring(network, encoding="unicode")
    assert "currentColor" in text
    assert "#1b1b1b" not in text


def test_a_tree_keeps_its_own_size_and_its_text_the_pages_ink():
    plan = pa.plan(SPEC, {"N": 9, "C": 4})
    text = picture(lambda: contraction_tree(plan), "tree", "a tree", scrolls=True).svg
    root = ET.fromstring(text)
    assert root.get("class") == "picture own-size"
    assert root.get("width", "").endswith("pt")
    assert "#1b1b1b" not in text
    assert "#ffffff" not in text


def test_what_cannot_be_drawn_says_why():
    def draw():
        raise pa.BudgetError("too large to draw")

    assert picture(draw, "a", "b") == Picture(missing="too large to draw")


def test_hostile_drawings_lose_their_code():
    text = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 1 1">
        <script>alert(1)</script><foreignObject><b/></foreignObject><a xlink:href="http://e.org/"><path d="M0 0"/></a>
        <use xlink:href="http://e.org/#a"/><path onclick="alert(1)" style="fill: #1b1b1b; stroke: url(#b)" d="M0 0"/>
        <text>&lt;script&gt;</text></svg>"""
    made = standalone(text, "p", '"><script>')
    root = ET.fromstring(made)
    assert [e.tag for e in root] == ["use", "path", "text"]
    assert root[1].attrib == {"fill": "currentColor", "stroke": "url(#p-b)", "d": "M0 0"}
    assert not root[0].attrib
    assert "<script" not in made
