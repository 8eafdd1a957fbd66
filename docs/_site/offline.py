"""mkdocs hook: the build fails if a page would ask anything of another host when it is opened; links may lead there."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.exceptions import PluginError

LOADED = {"script", "link", "img", "iframe", "source", "video", "audio", "embed", "object", "use", "image", "input"}
ELSEWHERE = re.compile(r"^\s*(https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Assets(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LOADED and ("rel", "canonical") not in attrs:
            wanted = {"src", "srcset", "href", "data", "poster", "xlink:href"}
            self.found += [v for k, v in attrs if k in wanted and v and ELSEWHERE.match(v)]


def on_post_build(config) -> None:
    found = []
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix not in (".html", ".css", ".svg"):
            continue
        text, assets = path.read_text(encoding="utf-8"), _Assets()
        if path.suffix != ".css":
            assets.feed(text)
        found += [f"{path.name}: {url}" for url in [*assets.found, *IN_STYLES.findall(text)]]
    if found:
        raise PluginError("pages load things from elsewhere:\n" + "\n".join(found))
