"""Classic einsum text as a specification's text."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, count

from polyattn.errors import SpecError
from polyattn.language.names import NAME, check_tensor_name


def einsum_text(equation: str, operands: str, input: str, where: tuple[str, ...] = ()) -> str:
    """Return the specification's text for `equation` on the named operands.

    Args:
        equation: such as "ad,ef,eh,df,hb->ab"; without "->" the output has the letters that occur once, sorted.
        operands: the tensors' names, separated by commas, such as "x,x,x,wf,wg".
        input: the declaration of the input, such as "x[N,C]"; several are separated by ";".
        where: further statements, such as "r : R" or "C = G*M".
    """
    _check_characters(equation)
    left, arrow, right = re.sub(r"\s", "", equation).partition("->")
    terms = left.split(",")
    names = [name.strip() for name in operands.split(",")]
    if len(terms) != len(names):
        raise SpecError(f"the equation has {len(terms)} operands, but {operands!r} names {len(names)}", equation, 1, 1)
    if not arrow:
        # numpy's rule for an implicit output.
        counts = Counter(c for term in terms for c in term)
        right = "".join(sorted(c for c, n in counts.items() if n == 1))
    # A capital would be a size: einsum's index A becomes a_, which einsum cannot spell, so it is free.
    letters = {c: c if c.islower() else f"{c.lower()}_" for c in left + right if c.isalpha()}
    for position, name in enumerate(names, 1):
        check_tensor_name(name, f"operand {position} of {operands!r}", (), scalar=not terms[position - 1])
    taken = {*names, *re.findall(NAME, input), *letters.values()}
    # The output's name must not collide with a tensor or an index; papers call it y or z.
    output = next(n for n in chain(("y", "z"), (f"y{k}" for k in count())) if n not in taken)

    def access(name: str, term: str) -> str:
        return f"{name}[{','.join(letters[c] for c in term)}]" if term else name

    product = "*".join(access(name, term) for name, term in zip(names, terms, strict=True))
    wheres = [f"where {text.removeprefix('where ').strip()}" for text in where]
    return "\n".join([input, *wheres, f"{access(output, right)} = {product}"])


def _check_characters(equation: str) -> None:
    # Characters are checked one by one, before anything is split, so that the caret points at the first
    # bad one.
    arrow = equation.find("->")
    for position, char in enumerate(equation):
        if char == ".":
            raise SpecError("an ellipsis has no meaning here: write every index", equation, 1, position + 1)
        if not (char.isascii() and (char.isalpha() or char in " \t,->")):
            raise SpecError(
                f"unexpected character {char!r} in einsum text; indices are letters", equation, 1, position + 1
            )
        after = arrow != -1 and position > arrow
        if (char in "->" and (arrow == -1 or position not in (arrow, arrow + 1))) or (char == "," and after):
            raise SpecError("one '->' expected, with one list of letters after it", equation, 1, position + 1)
