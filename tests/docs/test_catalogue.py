"""The page of the catalogue says what the entries' facts say."""

import runpy
from pathlib import Path
from types import SimpleNamespace

page = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "_site" / "catalogue.py")))


def test_the_page_has_the_facts_of_the_entries():
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.written(text), "run: python docs/_site/catalogue.py"
    assert page.written(text.replace("2017", "2016")) == text


def test_the_pages_of_the_families_and_their_pictures_are_made_of_the_entries():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in page.FOLDER.glob("*.md")}
    assert pages == {family: page.page(family) for family in page.catalog.families()}
    drawn = {path.name: path.read_text(encoding="utf-8") for path in page.PICTURES.glob("*.svg")}
    assert drawn == page.pictures(), "run: python docs/_site/catalogue.py"
