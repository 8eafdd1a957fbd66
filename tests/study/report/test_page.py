"""The page as text: what is in it, and that nothing of it could be code or leave it."""

import re
from html.parser import HTMLParser

import pytest

import polyattn as pa
from polyattn import catalog
from polyattn.study.report import Measurements, report, write_report

TEXT = "x[N,C]; s[d] = 1/N*x[e,h]*w1[h,d]*x[e,f]*w2[f,d]; y[a,b] = x[a,d]*s[d]*w3[d,b]"


class Elements(HTMLParser):
    VOID = frozenset({"meta", "link", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    return report({"poly_nl": catalog.poly_nl(), "nl": catalog.nl(), "own": pa.Spec(TEXT)}, {"N": 49, "C": 32})


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page)


def test_every_element_is_closed(elements):
    assert elements.open == []


def test_no_element_has_a_handler_or_a_style_of_its_own(elements):
    assert not [n for _, attributes in elements.found for n in attributes if n.startswith("on") or n == "style"]


def test_whatever_is_linked_is_inside_the_page(elements):
    links = [a[n] for _, a in elements.found for n in ("href", "src", "action", "data") if n in a]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_headings_descend_by_one(elements):
    assert elements.headings[0] == 1
    assert elements.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(elements.headings, elements.headings[1:], strict=False))


def test_pictures_are_described(elements):
    pictures = [a for tag, a in elements.found if tag == "svg" or a.get("role") == "img"]
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in pictures)


def test_verdicts_are_the_provers(page):
    parts = page.split("<h3>Against the others</h3>")
    statuses = re.findall(r'<span class="badge">([a-z ]+)</span> (\w+)', parts[1])
    assert statuses == [("different", "nl"), ("equal", "own")]


def test_the_code_is_the_lowered_plans(page):
    code = pa.lower(pa.plan(catalog.nl(), {"B": 8, "N": 49, "C": 32})).code.strip()
    assert code.splitlines()[-1] in page


def test_the_same_arguments_make_the_same_page():
    assert report({"nl": catalog.nl()}) == report({"nl": catalog.nl()})


def test_names_and_cells_are_escaped():
    evil = "<script>alert(1)</script>\"'"
    table = Measurements(evil, evil, (evil,), ((evil,),))
    page = report({evil: catalog.nl()}, measurements=[table], title=evil)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;") > 5


def test_a_size_that_none_has_is_refused():
    with pytest.raises(pa.SizeError, match="'Q'"):
        report({"nl": catalog.nl()}, {"Q": 3})


def test_where_it_cannot_be_written_is_said_first(tmp_path):
    with pytest.raises(pa.PolyattnError, match="no such folder"):
        write_report(tmp_path / "none" / "report.html", {"nl": catalog.nl()})
