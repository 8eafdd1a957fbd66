"""mkdocs hook: `<!-- public names of polyattn.study -->` on a page becomes an entry for each name of its `__all__`.

So a name that becomes public is on its page. A function in a module of its own name is entered by its full path, and a
package among the names by its own names.
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
            assert isinstance(node.value, ast.List)
            names = [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
            if len(names) < len(node.value.elts):  # what is unpacked there is the list of the modules in its folders
                names += [path.stem for path in folder.glob("*/[a-z]*.py")]
            return [path for name in sorted(names, key=str.lower) for path in _paths(folder, package, name)]
    raise ValueError(f"{package} has no __all__")


def _paths(folder: Path, package: str, name: str) -> list[str]:
    inner = folder / name
    for module in folder.glob(f"*/{name}.py"):  # in a folder of its family
        return [f"{package}.{module.parent.name}.{name}.{name}"]
    if (folder / f"{name}.py").exists():
        return [f"{package}.{name}.{name}"]
    if (inner / "op.py").exists():
        return [f"{package}.{name}.op.{name}"]
    if (inner / "__init__.py").exists():
        return entries(f"{package}.{name}")
    return [f"{package}.{name}"]
