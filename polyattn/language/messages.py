"""Messages for texts outside the grammar: the parser's errors as sentences with the expected construct."""

from __future__ import annotations

import unicodedata

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from polyattn.errors import SpecError
from polyattn.language.tokens import grammar

STARTS_FACTOR = {"NAME", "NUMBER", "LPAR"}

SLOT_ENDS = "',' or ']' expected: slots are separated by commas and closed by ']'"

HINTS = {
    "^": "there are no powers: write the factor as often as it occurs",
    "@": "there is no matrix product sign: write '*' and name the shared index on both sides",
    "{": "brackets are '[' for slots and '(' for sums",
    "}": "brackets are '[' for slots and '(' for sums",
    '"': "a specification has no quotation marks",
    "'": "a transposed matrix is written by exchanging its indices",
    ".": "a decimal has digits after its point, and a name has no point",
    "Σ": "there is no summation sign: an index that is not on the left is summed",
    "∑": "there is no summation sign: an index that is not on the left is summed",
    "−": "a minus sign is '-'",
    **dict.fromkeys("×·⋅∗⊙", "a product is written with '*'"),
}


def bad_character(error: UnexpectedCharacters, source: str) -> SpecError:
    char = source[error.pos_in_stream]
    name = unicodedata.name(char, f"U+{ord(char):04X}")
    hint = HINTS.get(char)
    if hint is None and char.isspace():
        hint = "only spaces, tabs and line ends separate"
    if hint is None:
        hint = "names are ASCII letters, digits and underscores, and start with a letter"
    return SpecError(f"unexpected character {char!r} ({name}); {hint}", source, error.line, error.column)


def bad_token(error: UnexpectedToken, source: str) -> SpecError:
    token = error.token
    at_end = token.type == "$END"
    previous = _token_before(source, None if at_end else token.start_pos)
    if at_end or token.type == "_END":
        place = previous or token
        line, column = place.line or 1, place.end_column or place.column or 1
        found = "the end of the text" if at_end else "the end of the statement"
    else:
        line, column, found = token.line or 1, token.column or 1, f"'{token}'"
    return SpecError(f"{_expectation(error, previous)}, but found {found}", source, line, column)


# The text is lexed a second time because Lark's error does not keep the token before the fault.
def _token_before(source: str, position: int | None) -> Token | None:
    previous = None
    for token in grammar().lex(source):
        if position is not None and (token.start_pos or 0) >= position:
            break
        previous = token
    return previous


def _expectation(error: UnexpectedToken, previous: Token | None) -> str:
    # `accepts` is what the parser's state allows next; `expected` also names tokens that fail later.
    expected, found = set(error.accepts or error.expected or ()), error.token.type
    # The order matters: a state often allows several tokens, and the first test names the likeliest
    # slip.
    if previous is not None and previous.type == "COLON":
        return "a size (a name that starts with a capital, or a number) or a range such as -1..1 expected"
    if previous is not None and previous.type == "DOTS":
        return "the greatest value of the range expected, as in 'where u : -1..1'"
    if "RSQB" in expected and "STAR" in expected and found in STARTS_FACTOR:
        return SLOT_ENDS
    if found == "RELATION" and "EQUAL" in expected:
        return "'=' and a sum expected: conditions such as '[e == a]' are factors in square brackets"
    if previous is not None and previous.type == "RELATION":
        return "the right side of a condition expected (an index, a size, a number, or a sum of whole multiples)"
    if "RELATION" in expected:
        return "a condition compares its two sides: one of <=, <, >=, >, == and != expected"
    if "STAR" in expected and found in STARTS_FACTOR:
        return "an operator is missing: '*' expected between two factors"
    if found in ("STAR", "SLASH") and previous is not None and previous.type in ("STAR", "SLASH"):
        return "there are no powers and no '//': one '*' or '/' between two factors, then a factor expected"
    # After a size in a 'where', which ends there or goes on with '*' or '+': the slash is meant to divide the size.
    if (
        found == "SLASH"
        and expected <= {"_END", "$END", "STAR", "SIGN"}
        and previous is not None
        and previous.type == "NAME"
    ):
        return (
            f"a size cannot be divided: for an eighth of {previous}, write 'where {previous} = 8*R' and 'where r : R', "
            "with R for its number; the end of the statement expected"
        )
    if found == "EQUAL" and expected <= {"_END", "$END"} and previous is not None and previous.type == "RSQB":
        return "a scalar is defined without brackets, as in 'y = x[a,b]': the end of the statement expected"
    if expected <= {"_END", "$END"} and previous is not None and previous.type == "RSQB":
        return "the end of the statement expected"
    if expected - {"RSQB", "SIGN"} == STARTS_FACTOR and previous is not None and previous.type in ("LSQB", "COMMA"):
        return "an index (or, in an input, a size) or a composite slot such as '(g m)' expected"
    # The general tests stand below the special ones that they would shadow.
    if expected >= STARTS_FACTOR:
        return "a factor expected (a number, a size, tensor[index, ...], a scalar parameter or a bracket)"
    if expected == {"NAME"} and previous is not None and previous.type == "_WHERE":
        return "after 'where': the name of a size, as in 'where C = G*M', or of an index, as in 'where r : R'"
    if expected == {"NAME"}:
        return "an index (a name that starts with a small letter) expected"
    if expected == {"NAME", "RPAR"}:
        return "an index or ')' expected: a composite slot such as '(g m)' has its indices separated by spaces"
    if {"_WHERE", "NAME"} <= expected:
        return "a statement expected (an input x[N,C], a 'where', or a definition name[index, ...] = sum)"
    if "RSQB" in expected:
        return SLOT_ENDS
    if {"EQUAL", "_END"} <= expected:
        slots = "slots in square brackets, " if found == "LPAR" else ""
        return f"{slots}'=' and a sum, or the end of the statement expected"
    if "COLON" in expected:
        return "':' and a size, as in 'where r : R', or '=' and a product, as in 'where C = G*M', expected"
    if expected == {"NAME", "NUMBER"} and previous is not None and previous.type == "SIGN":
        return "an index or a number expected: a slot holds a sum of whole multiples, such as '2*i+u-1'"
    if expected == {"NAME", "NUMBER"} and previous is not None and previous.type == "LPAR":
        return "an index (a name that starts with a small letter) expected"
    if expected == {"NAME", "NUMBER", "RPAR"}:
        return "an index or ')' expected: a composite slot such as '(g m)' has its indices separated by spaces"
    if expected == {"NAME", "NUMBER"}:
        return "a size expected (a name that starts with a capital, or a number)"
    if expected == {"STAR"}:
        return "'*' and a size expected: 'where C = G*M' splits a size, and 'where r : R' gives an index its size"
    if "RPAR" in expected:
        return "')' or an operator expected"
    if "SIGN" in expected:
        return "an operator or the end of the statement expected"
    if "STAR" in expected:
        return "'*' or the end of the statement expected"
    return "the end of the statement expected after the size of an index"
