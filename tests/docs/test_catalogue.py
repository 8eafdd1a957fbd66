"""The page of the catalogue says what the entries' facts say."""

import runpy
from pathlib import Path
from types import SimpleNamespace

page = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_site" / "catalogue.py")))


def test_the_page_has_the_facts_of_the_entries():
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.written(text), "run: python docs/_site/catalogue.py"
    assert page.written(text.replace("2017", "2016")) == text
