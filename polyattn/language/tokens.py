"""Text to tokens: the grammar, the ends of statements, and brackets that pair up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from lark import Lark, Token

from polyattn.errors import SpecError

MAX_DEPTH = 40

OPENING = {"LPAR": ("RPAR", ")"), "LSQB": ("RSQB", "]")}
CONTINUES_BEFORE = {"SIGN", "STAR", "SLASH", "EQUAL"}
CONTINUES_AFTER = CONTINUES_BEFORE | {"COMMA"}


@lru_cache(maxsize=1)
def grammar() -> Lark:
    text = files("polyattn.language").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="basic", postlex=_StatementEnds(), maybe_placeholders=False)


class _StatementEnds:
    """Lark's token filter: drops the newlines that do not end a statement and checks that brackets pair up."""

    always_accept = ("_END",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        open_brackets: list[Token] = []
        previous: Token | None = None
        end: Token | None = None
        for token in stream:
            if token.type == "_END":
                if token == ";" or (not open_brackets and end is None):
                    end = token
                continue
            if end is not None and previous is not None and _ends(end, previous, token):
                yield end
            end = None
            _pair(open_brackets, token)
            yield token
            previous = token
        if open_brackets:
            last = open_brackets[-1]
            raise _bracket_error(f"this '{last}' is never closed: '{OPENING[last.type][1]}' is missing", last)


def _ends(end: Token, previous: Token, following: Token) -> bool:
    return end == ";" or (previous.type not in CONTINUES_AFTER and following.type not in CONTINUES_BEFORE)


def _pair(open_brackets: list[Token], token: Token) -> None:
    if token.type in OPENING:
        open_brackets.append(token)
        if len(open_brackets) > MAX_DEPTH:
            raise _bracket_error(f"brackets are nested more than {MAX_DEPTH} deep", token)
    elif token.type in ("RPAR", "RSQB"):
        if not open_brackets:
            raise _bracket_error(f"this '{token}' closes nothing: no bracket is open", token)
        opened = open_brackets.pop()
        wanted, close = OPENING[opened.type]
        if token.type != wanted:
            where = f"line {opened.line}, column {opened.column}"
            raise _bracket_error(f"'{close}' expected, to close the '{opened}' of {where}, but found '{token}'", token)


def _bracket_error(reason: str, token: Token) -> SpecError:
    return SpecError(reason, line=token.line or 1, column=token.column or 1)
