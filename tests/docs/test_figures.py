"""Pages quote the recorded results, and say nothing else between their marks."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

PATH = Path(__file__).parents[2] / "docs" / "_site" / "figures"
figures = SimpleNamespace(**runpy.run_path(str(PATH)))

QUOTING = [path for path in figures.pages() if "<!-- figures:" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", QUOTING, ids=lambda path: path.name)
def test_a_page_quotes_the_recorded_figures(page):
    text = page.read_text(encoding="utf-8")
    assert text == figures.written(text), "run: python docs/_site/figures"


def test_every_table_of_figures_is_on_some_page():
    marked = {match[2] for page in QUOTING for match in figures.BLOCK.finditer(page.read_text(encoding="utf-8"))}
    assert marked == set(figures.FIGURES)


def test_a_wrong_figure_is_put_right():
    right = figures.written("<!-- figures: kept -->\n<!-- end of figures -->")
    assert figures.written(right.replace("1", "2")) == right
