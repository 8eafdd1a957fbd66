"""The tables of the catalogue on its page, made from the facts of the entries: `python docs/_site/catalogue.py`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from polyattn import catalog
from polyattn.catalog.facts import Entry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "catalogue.md"
BLOCK = re.compile(r"(<!-- catalogue -->\n).*?(<!-- end of catalogue -->)", re.DOTALL)


def purpose(family: str) -> str:
    """Return the first line of a family's docstring."""
    path = ROOT / "polyattn" / "catalog" / family / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def row(entry: Entry) -> str:
    """Return an entry's row."""
    facts = entry.facts
    degree = "functions" if facts.degree is None else str(facts.degree)
    reach = ", ".join(f"{axis}: {far}" for axis, far in facts.reach.items())
    cells = (f"`{entry.name}`", facts.title, facts.source, degree, reach, ", ".join(facts.equivariant), facts.relation)
    return "| " + " | ".join(cells) + " |"


def tables() -> str:
    """Return the families one after the other, each entry in order of its year."""
    lines = [f"{len(catalog.names())} layers in {len(catalog.families())} families."]
    for family in catalog.families():
        lines += ["", f"## {family.replace('_', ' ').capitalize()}", "", purpose(family), ""]
        lines += ["| name | layer | source | degree | sees | permuted along | is |", "|" + " --- |" * 7]
        entries = sorted(map(catalog.entry, catalog.names(family)), key=lambda e: (e.year, e.name))
        lines += map(row, entries)
    return "\n".join(lines)


def written(text: str) -> str:
    """Return the page with its tables as the entries have them."""
    return BLOCK.sub(lambda m: f"{m[1]}{tables()}\n{m[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
