"""griffe extension: the examples in docstrings, doctests without a heading, become code blocks of the API pages."""

from __future__ import annotations

import re

from griffe import Extension, Object

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*|\n(?P=indent) +\S.*)*", re.MULTILINE)


class Doctests(Extension):
    def on_object(self, *, obj: Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    lines = [line.removeprefix(match["indent"]) for line in match[0].splitlines()]
    return "\n".join(["", "```pycon", *lines, "```"])
