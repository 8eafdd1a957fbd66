"""Text to tokens: the grammar, the ends of statements, and brackets that pair up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from lark import Lark, Token

from polyattn.errors import SpecError

# Bounds the recursion of every later walk over the tree; a person's text nests two or three deep.
MAX_DEPTH = 80

OPENING = {"LPAR": ("RPAR", ")"), "LSQB": ("RSQB", "]")}
# A newline next to an operator cannot end a statement, so long sums may be broken before or after a
# sign.
CONTINUES_BEFORE = {"SIGN", "STAR", "SLASH", "EQUAL"}
CONTINUES_AFTER = CONTINUES_BEFORE | {"COMMA"}


@lru_cache(maxsize=1)
def grammar() -> Lark:
    # LALR with a plain lexer is linear in the text's length, so hostile texts cannot stall the parser.
    text = files("polyattn.language").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="basic", postlex=_StatementEnds(), maybe_placeholders=False)


class _StatementEnds:
    """Lark's token filter: drops newlines inside a statement and checks that brackets are paired."""

    always_accept = ("_END",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        open_brackets: list[Token] = []
        previous: Token | None = None
        end: Token | None = None
        for token in stream:
            if token.type == "_END":
                # Newlines inside brackets never end a statement; a ';' does, so that an unclosed
                # bracket is reported in its own statement.
                if token == ";" or (not open_brackets and end is None):
                    end = token
                continue
            # The decision waits for the next token: a line may go on with an operator.
            if end is not None and previous is not None and _ends(end, previous, token):
                yield end
            end = None
            _pair(open_brackets, token)
            yield token
            previous = token
        if open_brackets:
            last = open_brackets[-1]
            # The innermost open bracket is the likeliest to have been forgotten.
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
