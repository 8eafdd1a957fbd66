"""mkdocs hook: what pages link to outside docs/ is part of the site, at the same path.

The home page is the repository's README.md. `[text](../proofs/README.md)` in docs/planning.md is right where the
repository is read; the site has no folder above its root, so such a link becomes `proofs/README.md`, a page made from
that file. Other files (recorded results, scripts) are copied as they are, so every link of the site stays inside it. A
link to a file that is not there fails the strict build.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "proofs/README.md")
LINK = re.compile(r"^```.*?^```|`[^`\n]+`|(?<=\]\()([^)\s#]+)", re.DOTALL | re.MULTILINE)
"""A link's target; code, where `softmax[e](1/sqrt(D)*...)` looks like a link, is matched without one."""


def on_files(files: Files, config) -> Files:
    for path in PAGES:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    sources = {page: ROOT / page for page in PAGES}
    sources |= {f.src_uri: DOCS / f.src_uri for f in files.documentation_pages() if f.src_uri not in PAGES}
    for source in sources.values():
        for target in filter(None, LINK.findall(source.read_text(encoding="utf-8"))):
            path = (source.parent / target).resolve()
            if ":" in target or not path.is_relative_to(ROOT) or path.is_relative_to(DOCS):
                continue
            inside = path.relative_to(ROOT).as_posix()
            if path.is_file() and files.get_file_from_path(inside) is None:
                files.append(File.generated(config, inside, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    source = page.file.src_uri
    folder = ROOT / source if source in PAGES else DOCS / source

    def inside(match: re.Match[str]) -> str:
        target = match.group(1)
        if target is None:
            return match[0]
        path = (folder.parent / target).resolve()
        if ":" in target or not path.is_relative_to(ROOT):
            return target
        found = path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT)
        if path.is_dir():
            found /= "README.md"
        ups = len(PurePosixPath(source).parts) - 1
        return "../" * ups + found.as_posix()

    return LINK.sub(inside, markdown)
