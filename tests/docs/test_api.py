"""The API pages have every public name, and every public name says what it does."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import polyattn as pa

API = Path(__file__).parents[2] / "docs" / "api"
PAGES = "\n".join(path.read_text(encoding="utf-8") for path in API.glob("*.md"))
ENTRIES = set(re.findall(r"^::: (\S+)", PAGES, re.MULTILINE))
PACKAGES = [name for name in pa.__all__ if pa._ORIGINS[name] == name]


def test_every_public_name_of_polyattn_is_on_an_api_page():
    assert {f"polyattn.{name}" for name in pa.__all__ if name not in PACKAGES} <= ENTRIES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_public_package_has_an_api_page_of_all_its_names_and_each_has_a_docstring(package):
    assert f"<!-- public names of polyattn.{package} -->" in PAGES
    module = import_module(f"polyattn.{package}")
    for name in module.__all__:
        value = getattr(module, name)
        assert isinstance(value, str | int | tuple | dict) or (value.__doc__ or "").strip(), name


def test_every_entry_is_a_name_that_exists():
    for name in ENTRIES:
        module, _, last = name.rpartition(".")
        assert hasattr(import_module(module), last), name
