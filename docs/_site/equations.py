"""mkdocs hook: equations between dollar signs become MathML, which browsers typeset without a script."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_) -> str:
    return EQUATION.sub(_typeset, html)


def _typeset(match: re.Match[str]) -> str:
    tag, opened, text = match.groups()
    display = "block" if opened == "[" else "inline"
    return f'<{tag} class="equation">{convert(html.unescape(text).strip(), display=display)}</{tag}>'
