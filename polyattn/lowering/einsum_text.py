"""The text of an einsum: its indices by operand, lists of numbers as text, and the length of each index."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from polyattn.errors import SizeError, SpecError

Labels = tuple[str, ...]
"""A label for each axis: a letter, or "...k" for the k-th axis from the right under an ellipsis."""

LETTERS_BY_NUMBER = string.ascii_uppercase + string.ascii_lowercase
"""Indices of lists as letters, in the order that torch gives outputs without a list."""

NOT_INDICES = set(string.punctuation)


def as_text(given: Sequence[object]) -> tuple[str, tuple[object, ...]]:
    """Return the equation and the operands of a call with lists of indices.

    Raises:
        TypeError: tensors and lists do not take turns, or an index is not a whole number of 0 or more or an ellipsis.
    """
    tensors, lists = list(given[::2]), list(given[1::2])
    output = tensors.pop() if len(given) % 2 else None
    if output is not None and not isinstance(output, list | tuple):
        raise TypeError(f"the last argument must be the list of the output's indices, not {type(output).__name__}")
    texts = [_indices_text(indices) for indices in lists]
    return ",".join(texts) + ("" if output is None else f"->{_indices_text(output)}"), tuple(tensors)


def _indices_text(indices: object) -> str:
    if not isinstance(indices, list | tuple):
        raise TypeError(f"a list of indices must follow each operand, not {type(indices).__name__}")
    text = ""
    for number in indices:
        if number is not Ellipsis and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise TypeError(f"an index must be a whole number of 0 or more, or ..., not {number!r}")
        text += "..." if number is Ellipsis else get_symbol(number)
    return text


def get_symbol(number: int) -> str:
    """Return a letter for each number: the 52 of ASCII in torch's order, then others."""
    return LETTERS_BY_NUMBER[number] if number < 52 else chr(number + (140 if number < 55_000 else 10_000))


def parse_einsum(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Parse the labels of every operand's axes and of the output's."""
    compact = equation.replace(" ", "")
    left, arrow, right = compact.partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise SpecError(f"the equation has {len(texts)} operands, but {len(ranks)} are given", equation, 1, 1)
    if ">" in right or "-" in left + right or ">" in left:
        raise SpecError("one '->' separates the operands from the output", equation, 1, 1)
    terms = [_term_labels(text, rank, equation, k) for k, (text, rank) in enumerate(zip(texts, ranks, strict=True))]
    # Numbered from the right, as broadcasting aligns axes.
    dots = tuple(f"...{k}" for k in range(max((_dots(t) for t in terms), default=0) - 1, -1, -1))
    counts = Counter(label for text in texts for label in text.replace("...", ""))
    # Implicit output: the ellipsis first, then letters that occur once, in alphabetical order, as in torch.
    if not arrow:
        return terms, (*dots, *sorted(c for c, n in counts.items() if n == 1))
    output = _letters(right, equation)
    if "..." in output:
        k = output.index("...")
        output = [*output[:k], *dots, *output[k + 1 :]]
    for label, number in Counter(output).items():
        if number > 1:
            raise SpecError(f"index {label!r} is repeated in the output", equation, 1, 1)
        if label not in counts and label not in dots:
            raise SpecError(f"index {label!r} of the output is in no operand", equation, 1, equation.rindex(label) + 1)
    return terms, tuple(output)


def _letters(text: str, equation: str) -> list[str]:
    """Split a term into its letters, with "..." for an ellipsis."""
    before, dots, after = text.partition("...")
    bad = next((c for c in before + after if c in NOT_INDICES or c.isspace() or c.isdigit()), None)
    if bad is not None:
        raise SpecError(f"{bad!r} is not an index: indices are letters", equation, 1, equation.index(bad) + 1)
    return [*before, *(["..."] if dots else []), *after]


def _term_labels(text: str, rank: int, equation: str, number: int) -> Labels:
    letters = _letters(text, equation)
    named = len(letters) - ("..." in letters)
    if "..." not in letters and named != rank:
        raise SizeError(f"operand {number} has {rank} axes, but the equation {equation!r} gives it {named}")
    if named > rank:
        raise SizeError(f"operand {number} has {rank} axes, but the equation {equation!r} gives it at least {named}")
    labels: list[str] = []
    for letter in letters:
        labels += [f"...{k}" for k in range(rank - named - 1, -1, -1)] if letter == "..." else [letter]
    return tuple(labels)


def _dots(labels: Labels) -> int:
    return sum(label.startswith(".") for label in labels)


def lengths_of(terms: Sequence[Labels], shapes: Sequence[tuple[int, ...]], equation: str) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for number, (labels, shape) in enumerate(zip(terms, shapes, strict=True)):
        own: dict[str, int] = {}
        for axis, (label, length) in enumerate(zip(labels, shape, strict=True)):
            # A diagonal does not broadcast: torch refuses it, too.
            if own.setdefault(label, length) != length:
                raise SizeError(
                    f"index {label!r} of {equation!r} is repeated in operand {number}, but its axes have lengths "
                    f"{own[label]} and {length}"
                )
            # Length 1 broadcasts to any other.
            have = lengths.get(label, 1)
            if have != length and 1 not in (have, length):
                shown = "an ellipsis axis" if label.startswith(".") else f"index {label!r}"
                raise SizeError(
                    f"{shown} of {equation!r} has length {have}, but axis {axis} of operand {number} has {length}"
                )
            lengths[label] = length if have == 1 else have
    return lengths
