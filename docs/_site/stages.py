"""Writes the order of the stages into CONTRIBUTING.md and docs/how-it-works.md: `python docs/_site/stages.py`.

The order and the forbidden imports are those of the import contracts in pyproject.toml; the purpose of a stage is the
first line of its docstring.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {"table": ROOT / "CONTRIBUTING.md", "diagram": ROOT / "docs" / "how-it-works.md"}
BLOCK = re.compile(r"(<!-- stages: (\w+) -->\n).*?(<!-- end of stages -->)", re.DOTALL)


def layers() -> list[list[str]]:
    """Return the stages, those that import nothing first; stages of one layer do not import each other."""
    (contract,) = [c for c in _contracts() if c["type"] == "layers"]
    return [[name.strip(" ()") for name in layer.split("|")] for layer in reversed(contract["layers"])]


def forbidden(stage: str) -> list[str]:
    """Return the packages that a stage must not import."""
    rules = [c for c in _contracts() if c["type"] == "forbidden" and f"polyattn.{stage}" in c["source_modules"]]
    return sorted({name for rule in rules for name in rule["forbidden_modules"]})


def purpose(stage: str) -> str:
    """Return the first line of a stage's docstring, without its name and the full stop."""
    package = ROOT / "polyattn" / stage
    path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return re.sub(r"^(Stage \d+, )?(\w+: )?", "", line).rstrip(".")


def table() -> str:
    """Return the table of the stages in Markdown."""
    rows = [
        f"| `{stage}` | {purpose(stage)} | {', '.join([*forbidden(stage), *(f'`{s}`' for s in layer if s != stage)])} |"
        for layer in layers()
        for stage in layer
        if stage != "__main__"
    ]
    return "\n".join(["| stage | purpose | must not import, either |", "| --- | --- | --- |", *rows])


def diagram() -> str:
    """Return the stages as a text diagram in which every arrow is an allowed direction of import."""
    packages = [[s for s in layer if (ROOT / "polyattn" / s).is_dir()] for layer in layers()]
    boxes = [" | ".join(layer) for layer in packages if layer]
    width = max(map(len, boxes))
    lines = f"\n{'▲':^{width}}\n".join(f"{box:^{width}}" for box in boxes)
    lines = "\n".join(line.rstrip() for line in lines.splitlines())
    return f"```text\n{lines}\n```"


def written(text: str) -> str:
    """Return a page with its blocks of stages as the contracts have them."""
    made = {"table": table, "diagram": diagram}
    return BLOCK.sub(lambda m: f"{m[1]}{made[m[2]]()}\n{m[3]}", text)


def _contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


if __name__ == "__main__":
    for path in PAGES.values():
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
