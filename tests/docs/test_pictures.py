"""The README's picture is what its script makes now: the same marks, lines and words in the same order."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


def drawn(svg: str) -> list[str]:
    """What a picture is made of; coordinates depend on the version of matplotlib and of its font."""
    return re.findall(r'<g id="(\w+?)_?\d*"|<!-- (.*?) -->', svg)


def test_the_pictures_are_those_that_the_script_makes():
    made = runpy.run_path(str(FOLDER / "poly_nl.py"))["pictures"]()
    assert sorted(made) == sorted(path.name for path in FOLDER.glob("*.svg"))
    for name, svg in made.items():
        assert len(drawn(svg)) > 10
        assert drawn(svg) == drawn((FOLDER / name).read_text(encoding="utf-8")), "run: python docs/pictures/poly_nl.py"
