"""Text to syntax tree. Knows the grammar and nothing of tensors; `checks` examines a tree's meaning.

Guarantees: any text gives a `Statements` or a `SpecError` with the place, in time linear in the length of the text.
The text's length and the depth of its brackets are limited.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from lark import Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from polyattn.errors import SpecError
from polyattn.language.affine import Affine, affine, place
from polyattn.language.conditions import combination_text, comparison, is_condition
from polyattn.language.functions import RESERVED, TABLE, nearest
from polyattn.language.messages import bad_character, bad_token
from polyattn.language.syntax import (
    FUNCTION,
    PARAMETER,
    Access,
    At,
    Bracket,
    Call,
    Definition,
    Factor,
    FunctionName,
    IndexSize,
    Input,
    Number,
    ParameterName,
    SizeRef,
    Slot,
    Split,
    Statements,
    Sum,
    Term,
    is_size_name,
)
from polyattn.language.tokens import grammar

# Limits of the text, far above any published layer: they keep hostile texts cheap.
MAX_LENGTH = 20_000
MAX_NUMBER = 300
MAX_SLOTS = 32


def parse(text: str | bytes) -> Statements:
    """Parse a specification's text.

    Raises:
        SpecError: the text is not a specification; the message has the line, the column and the expected construct.
    """
    source = _as_text(text)
    try:
        tree = grammar().parse(source)
    except UnexpectedCharacters as error:
        raise bad_character(error, source) from None
    except UnexpectedToken as error:
        raise bad_token(error, source) from None
    except SpecError as error:
        # The token filter raises without the text; the caret needs it.
        raise SpecError(error.reason, source, error.line, error.column) from None
    return _Builder(source).statements(tree)


def _as_text(text: str | bytes) -> str:
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SpecError(f"the text is not UTF-8: {error.reason} at byte {error.start}") from None
    if not isinstance(text, str):
        raise SpecError(f"a specification is text, not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"the text has {len(text)} characters; a specification has at most {MAX_LENGTH}")
    return text


ParseTree = Any
"""Lark's `Tree`; its children are typed as trees or tokens alike, and the grammar tells them apart."""


class _Builder:
    """Lark tree to syntax tree, with the checks that need one statement only."""

    def __init__(self, source: str):
        self.source = source

    def error(self, reason: str, at: At) -> SpecError:
        return SpecError(reason, self.source, at.line, at.column)

    def statements(self, tree: ParseTree) -> Statements:
        inputs, splits, index_sizes, definitions = [], [], [], []
        # Read first: a definition above a declaration may use its function.
        own = [f for child in tree.children if child.data == "index_size" for f in self.functions(child)]
        self.own = tuple(dict.fromkeys(f.name for f in own))
        parameters: list[ParameterName] = []
        for child in tree.children:
            if child.data == "declaration":
                inputs.append(self.declaration(child))
            elif child.data == "split":
                splits.append(self.split(child))
            elif child.data == "index_size":
                if child.children[-1] == PARAMETER:
                    parameters += [ParameterName(str(name), _at(name)) for name in child.children[:-1]]
                elif not _declares_functions(child):
                    index_sizes.extend(self.index_size(child))
            else:
                definitions.append(self.definition(child))
        return Statements(
            tuple(inputs),
            # Sorted, because the order of declarations has no meaning: texts that differ in it give
            # equal trees.
            tuple(sorted(splits, key=lambda s: s.size)),
            tuple(sorted(index_sizes, key=lambda s: (s.size, s.index))),
            tuple(definitions),
            tuple(sorted(dict.fromkeys(own), key=lambda f: f.name)),
            tuple(sorted(dict.fromkeys(parameters), key=lambda p: p.name)),
        )

    def functions(self, tree: ParseTree) -> list[FunctionName]:
        """Return the names that a `where phi : function` declares."""
        if not _declares_functions(tree):
            return []
        names = tree.children[:-1]
        for name in names:
            if name in TABLE or is_size_name(name):
                reason = "is a function of the language" if name in TABLE else "is a size"
                raise self.error(f"'{name}' {reason}; a function of your own needs another name", _at(name))
        return [FunctionName(str(name), _at(name)) for name in names]

    def declaration(self, tree: ParseTree) -> Input:
        (head,) = tree.children
        if isinstance(head, Token):
            if is_size_name(head):
                raise self.error(
                    f"'{head}' without slots would be a size: the name of a scalar input starts with a small letter",
                    _at(head),
                )
            return Input(str(head), (), _at(head))
        name = head.children[0]
        if len(head.children) == 1:
            raise self.error(
                f"'{name}' alone says nothing: an input is {name}[N,C] or, if it is a scalar, {name}[]; "
                f"a definition is {name}[index, ...] = sum",
                _at(name),
            )
        sizes = []
        for slot in self.slots(head):
            token = place(slot)
            summed = isinstance(slot.children[0], Tree) and not affine(slot.children[0], self.source).indices
            if len(slot.children) > 1 or not (summed or token.type == "NUMBER" or is_size_name(token)):
                raise self.error(
                    "a statement without '=' declares an input, whose slots are sizes (capitals, as in x[N,C]); "
                    "a definition goes on with '=' and a sum",
                    _at(token),
                )
            sizes.append(self.measure(slot.children[0]))
        return Input(str(name), tuple(sizes), _at(name))

    def split(self, tree: ParseTree) -> Split:
        name, *parts = (c for c in tree.children if _kind(c) != "STAR")
        if not is_size_name(name):
            raise self.error(
                f"'{name}' is an index; only a size can be split, and sizes start with a capital", _at(name)
            )
        return Split(str(name), tuple(self.size_text(p.children[0]) for p in parts), _at(name))

    def index_size(self, tree: ParseTree) -> list[IndexSize]:
        *names, size = tree.children
        for name in names:
            if is_size_name(name):
                raise self.error(f"'{name}' is a size; 'where ... :' gives indices their size", _at(name))
        is_range = isinstance(size, Tree) and size.data == "range"
        text, least = self.range(size) if is_range else (self.measure(size), None)
        return [IndexSize(str(name), text, _at(name), least) for name in names]

    def measure(self, tree: ParseTree) -> str:
        """Return a size as text: a name, a number, or a combination such as `2*N-1`."""
        if isinstance(tree, Token):
            return self.size_text(tree)
        form = affine(tree, self.source)
        if form.indices:
            raise self.error(
                f"'{form.indices[0]}' is no size: sizes start with a capital, as in '2*N-1'", _at(place(tree))
            )
        return str(form) if form.terms else self.size_text(Token("NUMBER", str(form)))

    def range(self, tree: ParseTree) -> tuple[str, int]:
        """Return the number of values of a range as text, and the least value."""
        ends, sign = [], 1
        for token in tree.children:
            if token.type in ("SIGN", "DOTS"):
                sign = -1 if token == "-" else 1
                continue
            if not token.isdigit() or len(token) > 9:
                raise self.error("a range goes from a whole number to another, as in 'where u : -1..1'", _at(token))
            ends.append(sign * int(token))
            sign = 1
        least, greatest = ends
        if greatest < least:
            raise self.error(
                f"the range {least}..{greatest} is empty: the smaller number stands first", _at(tree.children[0])
            )
        return str(greatest - least + 1), least

    def size_text(self, token: Token) -> str:
        if token.type == "NUMBER":
            # The digits are cut because `int` refuses very long texts with an error of its own.
            if not token.isdigit() or int(token[:MAX_NUMBER]) == 0 or len(token) > 9:
                raise self.error("a size is a whole number from 1 to 999999999", _at(token))
            # Leading zeros go: 04 and 4 are one size.
            return str(int(token))
        if not is_size_name(token):
            raise self.error(f"'{token}' is no size: sizes start with a capital", _at(token))
        return str(token)

    def definition(self, tree: ParseTree) -> Definition:
        head, body = tree.children
        target = self.access(head)
        if is_size_name(target.tensor) and not target.slots:
            raise self.error(f"'{target.tensor}' is a size: 'where {target.tensor} = A*B' splits it", target.at)
        terms = body.children
        # A call on its own is a definition's body; elsewhere it is a factor.
        if len(terms) == 1 and len(terms[0].children) == 1 and _kind(terms[0].children[0]) == "call":
            return Definition(target, self.call(terms[0].children[0]))
        return Definition(target, self.sum(body))

    def call(self, tree: ParseTree) -> Call:
        head, argument, *where = tree.children
        name = head.children[0]
        if name not in TABLE and name not in self.own:
            raise self.no_function(name)
        over = []
        for slot in self.slots(head):
            if len(slot.children) > 1 or not isinstance(slot.children[0], Token):
                raise self.error("a function's indices are plain: split them with commas", _at(place(slot)))
            over.extend(self.slot(slot).indices)
        conditions = tuple(self.condition(tree, _at(place(tree))) for tree in where)
        if conditions and not over:
            raise self.error(
                f"'{name}' works on each entry by itself and has no places to choose: 'where' belongs to functions "
                "along indices, such as 'softmax[e]'",
                conditions[0].at,
            )
        return Call(str(name), tuple(over), self.sum(argument), _at(name), conditions)

    def condition(self, tree: ParseTree, at: At) -> Access:
        """Return a comparison as an access of the reserved tensor of its name."""
        left, relation, right = tree.children
        composite = any(len(side.children) > 1 for side in (left, right))
        slots: dict[tuple[str, ...], Slot] = {}
        texts = [self.side(side, slots) for side in (left, right)]
        name = f"[{texts[0]}{relation}{texts[1]}]"
        if composite and not set(texts) <= {"{0}", "{1}"}:
            raise self.error(
                "a composite is compared as a whole, with another composite or an index: '[(g n) <= (h m)]'", at
            )
        if not slots:
            raise self.error("a condition compares positions: it has at least one index, as in '[e <= a]'", at)
        if len(comparison(name).slots) < len(slots) or not all(comparison(name).slots):
            raise self.error("an index cancels in this condition: leave it out", at)
        return Access(name, tuple(slots.values()), at)

    def side(self, tree: ParseTree, slots: dict[tuple[str, ...], Slot]) -> str:
        """Return one side of a comparison as text, with numbered slots."""
        numbered: dict[str, str] = {}
        if len(tree.children) > 1:
            form, keys = Affine.of({"": 1}), {"": self.slot(tree)}
        else:
            form = affine(tree.children[0], self.source)
            keys = {index: Slot((index,), _at(place(tree))) for index in form.indices}
        for name, slot in keys.items():
            slots.setdefault(slot.indices, slot)
            numbered[name] = f"{{{list(slots).index(slot.indices)}}}"
        return combination_text([(numbered.get(n, n), c) for n, c in form.terms], form.constant)

    def no_function(self, name: Any) -> SpecError:
        return self.error(
            f"unknown function '{name}': {nearest(name, self.own)}; for a product, write '*' before the bracket, and "
            f"declare a function of your own with 'where {name} : {FUNCTION}'",
            _at(name),
        )

    def sum(self, tree: ParseTree) -> Sum:
        terms, negative = [], False
        for child in tree.children:
            if isinstance(child, Token):
                negative = child == "-"
            else:
                terms.append(self.term(child, negative))
                # A sign belongs to the one term that follows it.
                negative = False
        return Sum(tuple(terms))

    def term(self, tree: ParseTree, negative: bool) -> Term:
        factors, divides, divide = [], [], False
        for child in tree.children:
            if isinstance(child, Token):
                divide = child.type == "SLASH"
                continue
            factor = self.factor(child)
            if divide and isinstance(factor, Number) and not factor.value:
                raise self.error("division by zero", factor.at)
            if divide and isinstance(factor, Access) and is_condition(factor.tensor):
                raise self.error("a condition is 0 somewhere and cannot be divided by", factor.at)
            factors.append(factor)
            divides.append(divide)
            # '/' binds only the next factor: a/2*b is a*b/2.
            divide = False
        return Term(negative, tuple(factors), tuple(divides), factors[0].at)

    def factor(self, tree: ParseTree) -> Factor:
        if tree.data == "number":
            (token,) = tree.children
            # The exponent counts as digits: 1e9 has ten.
            exponent = token.lower().partition("e")[2].lstrip("+-")
            if len(token) + (int(exponent) if len(exponent) < 9 and exponent else len(exponent)) > MAX_NUMBER:
                raise self.error(f"numbers have at most {MAX_NUMBER} digits", _at(token))
            # A Fraction of the text, not of a float: 0.1 is exactly 1/10.
            return Number(Fraction(str(token)), _at(token))
        if tree.data == "bracket":
            opened, inner = tree.children
            return Bracket(self.sum(inner), _at(opened))
        if tree.data == "call":
            return self.call(tree)
        if tree.data == "condition":
            opened, inner = tree.children
            return self.condition(inner, _at(opened))
        access = self.access(tree)
        if access.tensor in (*RESERVED, *self.own):
            raise self.error(f"'{access.tensor}' is a function: its argument follows in round brackets", access.at)
        if not access.slots and is_size_name(access.tensor):
            return SizeRef(access.tensor, access.at)
        return access

    def access(self, tree: ParseTree) -> Access:
        name = tree.children[0]
        return Access(str(name), tuple(self.slot(slot) for slot in self.slots(tree)), _at(name))

    def slots(self, head: ParseTree) -> list[ParseTree]:
        found = head.children[1].children if len(head.children) > 1 else []
        if len(found) > MAX_SLOTS:
            raise self.error(f"a tensor has at most {MAX_SLOTS} slots", _at(place(found[MAX_SLOTS])))
        return found

    def slot(self, tree: ParseTree) -> Slot:
        if len(tree.children) > MAX_SLOTS:
            raise self.error(f"a composite slot has at most {MAX_SLOTS} indices", _at(tree.children[MAX_SLOTS]))
        first = tree.children[0]
        if len(tree.children) == 1 and (isinstance(first, Tree) or first.type == "NUMBER"):
            form = affine(first, self.source)
            if form.sizes:
                raise self.error(
                    f"'{form.sizes[0]}' is a size: a slot's combination has indices (small letters) and numbers",
                    _at(place(tree)),
                )
            if not form.constant and [c for _, c in form.terms] == [1]:
                return Slot(form.indices, _at(place(tree)))
            return Slot(form.indices, _at(place(tree)), form)
        for token in tree.children:
            if token.type == "NUMBER" and (not token.isdigit() or len(token) > 9):
                raise self.error("numbers here are whole, from 0 to 999999999", _at(token))
            if token.type == "NAME" and is_size_name(token):
                raise self.error(
                    f"'{token}' is a size: slots hold indices, which start with a small letter", _at(token)
                )
        numbers = tuple((k, int(t)) for k, t in enumerate(tree.children) if t.type == "NUMBER")
        if len(numbers) == len(tree.children):
            raise self.error("a composite slot has an index: a number alone stands without brackets", _at(first))
        return Slot(tuple(str(t) for t in tree.children if t.type == "NAME"), _at(first), None, numbers)


def _declares_functions(tree: ParseTree) -> bool:
    return tree.children[-1] == FUNCTION


def _kind(node: Tree | Token) -> str:
    return node.data if isinstance(node, Tree) else node.type


def _at(token: Any) -> At:
    return At(token.line or 0, token.column or 0)
