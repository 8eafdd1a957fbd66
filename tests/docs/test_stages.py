"""The pages that show the order of the stages say what the import contracts say."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

stages = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_site" / "stages.py")))


@pytest.mark.parametrize(("kind", "page"), stages.PAGES.items())
def test_a_page_shows_the_order_of_the_contracts(kind, page):
    text = page.read_text(encoding="utf-8")
    assert f"<!-- stages: {kind} -->" in text
    assert text == stages.written(text), "run: python docs/_site/stages.py"


def test_a_wrong_stage_is_put_right():
    right = stages.written("<!-- stages: table -->\n<!-- end of stages -->")
    assert "`planning`" in right
    assert stages.written(right.replace("planning", "plumbing")) == right
