"""The pages of the catalogue, made from its entries and the recorded costs: `python docs/_site/catalogue.py`.

docs/catalogue.md has the tables of all families; docs/catalogue/ a page for each family, with a section for each
entry: its equation, its picture, its facts and what it costs.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from flow import flow

from polyattn import catalog
from polyattn.catalog.facts import Entry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "catalogue.md"
FOLDER = ROOT / "docs" / "catalogue"
PICTURES = ROOT / "docs" / "pictures" / "catalogue"
BLOCK = re.compile(r"(<!-- catalogue -->\n).*?(<!-- end of catalogue -->)", re.DOTALL)


def purpose(family: str) -> str:
    """Return the first line of a family's docstring."""
    path = ROOT / "polyattn" / "catalog" / family / "__init__.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def heading(family: str) -> str:
    return family.replace("_", " ").capitalize()


def entries(family: str) -> list[Entry]:
    """Return a family's entries in order of their years."""
    return sorted(map(catalog.entry, catalog.names(family)), key=lambda e: (e.year, e.name))


def facts(entry: Entry) -> tuple[str, str, str, str]:
    """Return an entry's degree, reach, axes and relation in words."""
    known = entry.facts
    reach = ", ".join(f"{axis}: {far}" for axis, far in known.reach.items())
    degree = "functions" if known.degree is None else str(known.degree)
    return degree, reach, ", ".join(known.equivariant), known.relation


def row(entry: Entry) -> str:
    """Return an entry's row."""
    link = f"[`{entry.name}`](catalogue/{entry.family}.md#{entry.name})"
    return "| " + " | ".join((link, entry.facts.title, str(entry.year), *facts(entry))) + " |"


def tables() -> str:
    """Return the families one after the other, each entry in order of its year."""
    lines = [f"{len(catalog.names())} layers in {len(catalog.families())} families."]
    for family in catalog.families():
        lines += ["", f"## {heading(family)}", "", purpose(family), ""]
        lines += ["| name | layer | year | degree | sees | permuted along | is |", "|" + " --- |" * 7]
        lines += map(row, entries(family))
    return "\n".join(lines)


def written(text: str) -> str:
    """Return the page with its tables as the entries have them."""
    return BLOCK.sub(lambda m: f"{m[1]}{tables()}\n{m[2]}", text)


@cache
def costs() -> dict[str, dict]:
    """Return the recorded costs by name."""
    path = ROOT / "benchmarks" / "results" / "atlas_entries.json"
    return {run["entry"]: run for run in json.loads(path.read_text(encoding="utf-8"))["runs"] if "macs" in run}


def page(family: str) -> str:
    """Return a family's page."""
    lines = [f"# Catalogue: {heading(family).lower()}", "", purpose(family), ""]
    lines.append("All families: [the catalogue of layers](../catalogue.md). Made by `python docs/_site/catalogue.py`.")
    for entry in entries(family):
        degree, reach, axes, relation = facts(entry)
        source = f"{entry.source}." if str(entry.year) in entry.source else f"{entry.source} ({entry.year})."
        lines += ["", f"### {entry.name}", "", f"{entry.facts.title}. Source: {source}", ""]
        lines += ["```text", str(entry.spec), "```", ""]
        lines += [f"![{entry.facts.title}, definition by definition](../pictures/catalogue/{entry.name}.svg)", ""]
        lines.append(f"- degree: {'none, it has functions' if degree == 'functions' else degree}")
        named = {"sees along an axis": reach, "permuted along": axes, "relation": relation}
        lines += [f"- {name}: {text}" for name, text in named.items() if text]
        if run := costs().get(entry.name):
            sizes = " ".join(f"{name}={number}" for name, number in run["sizes"].items())
            macs = run["macs"]
            lines.append(
                f"- multiply-accumulates at {sizes}: {macs['as_written']:,} as written, {macs['forward']:,} as planned"
            )
        if note := NOTES.get(entry.name):
            lines += ["", note]
    return "\n".join(lines) + "\n"


NOTES = {
    "nl": """The sum over N positions is not divided by N: at 14 x 14 positions and 64 channels, with initial weights
of variance 1/C, its outputs have a standard deviation of about 230. In a network write `1/N *` in front of the product,
or take `pa.nn.NonLocal`, which divides.""",
}
"""What a user of an entry has to know before it is in a network."""


def pictures() -> dict[str, str]:
    """Return each entry's picture by its file name."""
    return {f"{name}.svg": flow(catalog.get(name), catalog.entry(name).facts.title) for name in catalog.names()}


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for folder in (FOLDER, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    for name in catalog.families():
        (FOLDER / f"{name}.md").write_text(page(name), encoding="utf-8")
    for name, svg in pictures().items():
        (PICTURES / name).write_text(svg, encoding="utf-8")
