"""Letters for sizes: those that the caller gives, then those of the inputs' axes by their role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polyattn.errors import ReadingError, SizeError
from polyattn.language.names import is_name
from polyattn.reading.render import SIZES, Naming, sizes_in
from polyattn.reading.sizes import Size, UnsayableError, atoms, composite, unify
from polyattn.reading.values import Index, Tensor, Value

BATCH = "B"
BATCHED = {1: "C", 2: "N C", 3: "C H W", 4: "C T H W"}
UNBATCHED = {1: "C", 2: "N C", 3: "M N C", 4: "M C H W"}


@dataclass(frozen=True)
class Names:
    """The argument `names`: letters for axes by input, and for numbers.

    Attributes:
        first: the letters of the first input, where they come without its name.
    """

    first: tuple[str, ...] | None = None
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: Mapping[int, str] = field(default_factory=dict)
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Letters for the parts of a size, where another text has them."""
    plain: bool = False
    """Whether parts of sizes stay numbers."""

    @property
    def marked(self) -> bool:
        """Return whether the caller says which axis is the batch."""
        return any(BATCH in letters for letters in (self.first or (), *self.inputs.values()))

    @property
    def first_is_batch(self) -> bool:
        given = self.first or next(iter(self.inputs.values()), None)
        return given is None or given[:1] == (BATCH,)

    def letters(self, name: str, place: int) -> tuple[str, ...] | None:
        return self.inputs.get(name) or (self.first if place == 0 else None)

    def batch_axis(self, name: str, rank: int) -> int | None:
        given = self.letters(name, 0)
        if given is None:
            return 0 if rank else None
        return given.index(BATCH) if BATCH in given else None


def parse_names(names: str | Mapping[Any, str] | None) -> Names:
    """Read the argument `names`.

    Raises:
        ReadingError: it is not of the form; the message shows the form.
    """
    if names is None:
        return Names()
    if isinstance(names, str):
        return Names(_letters(names))
    if not isinstance(names, Mapping):
        raise ReadingError(f'`names` is a {type(names).__name__}; expected a text such as "B N C", or a dictionary')
    inputs: dict[str, tuple[str, ...]] = {}
    numbers: dict[int, str] = {}
    for key, text in names.items():
        if isinstance(key, int) and not isinstance(key, bool):
            numbers[key] = _letters(text)[0]
        elif isinstance(key, str):
            inputs[key] = _letters(text)
        else:
            raise ReadingError(
                f"`names` has the key {key!r}; expected an input's name, or a number that the code fixes"
            )
    return Names(None, inputs, numbers)


def _letters(text: object) -> tuple[str, ...]:
    found = tuple(str(text).replace(",", " ").split()) if isinstance(text, str) else ()
    for letter in found:
        if not is_name(letter) or not letter[0].isupper():
            raise ReadingError(f"`names` has {letter!r}; a size's name starts with a capital, such as N")
    if not found or found.count(BATCH) > 1:
        raise ReadingError(f'`names` has {text!r}; expected letters for the axes, one of them B at most: "B N C"')
    return found


def name_sizes(
    naming: Naming,
    names: Names,
    inputs: Mapping[str, Value],
    batch: Size | None,
    tensors: Sequence[Tensor],
    axes: Sequence[Sequence[Index]] = (),
) -> None:
    """Give letters to the sizes of a text.

    Args:
        axes: the indices of the output's axes.

    Raises:
        ReadingError: `names` does not fit the inputs.
    """
    naming.batch = batch
    unknown = [n for n in names.inputs if n not in inputs]
    if unknown:
        raise ReadingError(f"`names` has {unknown[0]!r}, but the inputs are {', '.join(inputs)}")
    by_letter: dict[str, Size] = {}
    for place, (name, value) in enumerate(inputs.items()):
        given = names.letters(name, place)
        if given is not None and len(given) != len(value.axes):
            raise ReadingError(f"`names` has {len(given)} letters for `{name}`, which has {len(value.axes)} axes")
        batched = any(a and batch is not None and a[0].size.root is batch for a in value.axes)
        rank = len(value.axes) - batched
        default = ((BATCHED if batched else UNBATCHED).get(rank, " ".join(SIZES[:rank]))).split()
        for k, axis in enumerate(value.axes):
            root = axis[0].size.root if axis else None
            if batched and root is batch:
                continue
            letter = given[k] if given else default.pop(0) if default else "N"
            if root is None or root in naming.sizes or letter == BATCH:
                continue
            have = by_letter.get(letter)
            if have is not None and have.root is not root:
                if given is not None:
                    _same(have, root, letter)
                    continue
                letter = _next(naming)
            _give(naming, root, letter, letter[0])
            by_letter[letter] = root
    _join(naming, [*(composite([i.size for i in a]) for a in axes if len(a) > 1), *sizes_in(tensors)])
    for root in all_sizes(sizes_in(tensors)):
        if root in naming.sizes or root is batch or root.kernel:
            continue
        if not root.fixed:
            if not root.parts:
                _give(naming, root, _next(naming), "N")
        elif not root.parts and root.example in names.numbers:
            _give(naming, root, names.numbers[root.example], names.numbers[root.example][0])
    for size in (s for t in tensors if t.kind == "input" for s in t.sizes):
        # An input's shape has names: a product of numbers needs one.
        if size.root.parts and size.root not in naming.sizes and size.root is not batch:
            _give(naming, size.root, _next(naming), "K")
    for root, letter in list(naming.sizes.items()):
        _name_parts(naming, root, letter, names)


def _join(naming: Naming, sizes: Sequence[Size]) -> None:
    """Give sizes that have the same number as a fixed size with a letter the letter as well.

    A product of 8 heads and 8 channels is then the C of 64 channels. Sizes that are split in another way stay apart.
    """
    lettered = {root.example: root for root in naming.sizes if root.fixed}
    for size in sizes:
        root = size.root
        have = lettered.get(root.example)
        if have is None or not root.fixed or root in naming.sizes or any(_holds(s, root) for s in naming.sizes):
            continue
        have = have.root
        if have is root or (root.whole and (have.parts or root.kernel)) or (have.whole and root.parts):
            continue
        if root.parts and have.parts and [a.example for a in atoms(root)] != [a.example for a in atoms(have)]:
            continue
        letter, role = naming.sizes[have], naming.roles[have]
        unify(have, root)
        naming.sizes.pop(have, None)
        naming.sizes = {have.root: letter, **naming.sizes}
        naming.roles[have.root] = role
        lettered[have.example] = have.root


def _holds(size: Size, part: Size) -> bool:
    return any(p.root is part or _holds(p, part) for p in size.root.parts)


def _name_parts(naming: Naming, root: Size, letter: str, names: Names) -> None:
    """Give the innermost part of a size with a letter one as well, as the head channels D of C = 8*D."""
    parts = [p.root for p in root.parts]
    if not parts:
        return
    role = naming.roles.get(root, letter)
    for part, name in zip(parts, names.splits.get(letter, ()), strict=False):
        if len(parts) == len(names.splits[letter]) and part not in naming.sizes and not part.parts:
            _give(naming, part, name, name[0])
    if role == "C":
        naming.roles.setdefault(parts[0], "heads")
        naming.roles.setdefault(parts[-1], "D")
    last = parts[-1]
    if last.fixed and not last.parts and last not in naming.sizes and not names.plain:
        name = "D" if role == "C" and "D" not in naming.sizes.values() else _next(naming)
        _give(naming, last, name, naming.roles.get(last, name))


def all_sizes(sizes: Iterable[Size]) -> list[Size]:
    """Return sizes and the parts of them, each once."""
    found: dict[Size, None] = {}

    def add(size: Size) -> None:
        if size.root not in found:
            found[size.root] = None
            for part in size.root.parts:
                add(part)

    for size in sizes:
        add(size)
    return list(found)


def _give(naming: Naming, root: Size, letter: str, role: str) -> None:
    naming.sizes[root] = letter
    naming.roles.setdefault(root, role)


def _next(naming: Naming) -> str:
    taken = {*naming.sizes.values(), BATCH}
    return next(n for k in range(100) for c in SIZES if (n := f"{c}{k or ''}") not in taken)


def _same(have: Size, root: Size, letter: str) -> None:
    try:
        unify(have, root)
    except UnsayableError:
        raise ReadingError(
            f"`names` gives the letter {letter} to axes of the lengths {have.example} and {root.example}"
        ) from SizeError()
