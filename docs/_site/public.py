"""mkdocs hook: `<!-- public names of polyattn.study -->` on a page becomes an entry for each name of its `__all__`.

So a name that becomes public is on its page. A function in a module of its own name is entered by its full path.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- public names of (polyattn\.\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_) -> str:
    return MARK.sub(lambda match: "\n\n".join(f"::: {path}" for path in entries(match[1])), markdown)


def entries(package: str) -> list[str]:
    """The paths of a package's public names, in the order of the alphabet."""
    folder = ROOT.joinpath(*package.split("."))
    for node in ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = sorted(ast.literal_eval(node.value), key=str.lower)
            return [f"{package}.{name}" + _again(folder, name) for name in names]
    raise ValueError(f"{package} has no __all__")


def _again(folder: Path, name: str) -> str:
    """`.name` where a module has the name of what it holds; a folder of that name has it in its module `op`."""
    if (folder / f"{name}.py").exists():
        return f".{name}"
    if (folder / name / "__init__.py").exists():
        return f".op.{name}" if (folder / name / "op.py").exists() else f".{name}"
    return ""
