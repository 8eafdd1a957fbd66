"""Products over neighbourhoods: convolutions and their transposes, windows, gathers, sums over offsets.

`product` computes `out = sum A * B * [p == s*i + d*u + n] * ...`: each relation places the index `p` of an operand, or
of the result, at a combination of other indices; positions outside of the range of `p` add nothing. It goes to torch's
convolution where the relations say one, forward or transposed or as the gradient of the kernel, and else runs over the
fewest offsets, each a strided view of its operand: an operand is never copied once for each offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product as combinations
from math import prod

import torch
from torch.nn import functional

from polyattn.lowering.convolutions import Letters, Relation, Task, convolution, flip, stretched
from polyattn.lowering.shapes import widened
from polyattn.lowering.strided import box_sum, is_plain

ADDED = 128
"""Offsets up to which the views of a window are added one by one."""

VIEWED = 16
"""Offsets up to which a sum over a window is taken view by view; a gather takes the place of more."""


def neighbourhood(
    first: torch.Tensor,
    second: torch.Tensor | None,
    letters: str,
    relations: tuple[Relation, ...],
    sizes: tuple[tuple[str, int], ...],
) -> torch.Tensor:
    """Return a product over neighbourhoods, `letters` as in an einsum; see `product`."""
    operands, _, output = letters.partition("->")
    return product(first, second, Task(tuple(operands.split(",")), output, relations, sizes))


def product(first: torch.Tensor, second: torch.Tensor | None, task: Task) -> torch.Tensor:
    """Return the product over neighbourhoods that the task describes."""
    inside = "".join(p for p, _, _ in task.relations if p not in task.output and p not in "".join(task.operands))
    if inside:
        # A place that nothing is read at only has to exist: the first operand is constant along it.
        first = first[(..., *[None] * len(inside))].expand([*first.shape, *[task.lengths[p] for p in inside]])
        task = replace(task, operands=(task.operands[0] + inside, *task.operands[1:]))
    if second is None:
        return _single(first, task)
    for one, two, turned in ((first, second, task), (second, first, _turned(task))):
        if (way := convolution(turned)) is not None:
            return way.run(one, two)
    return _over_offsets((first, second), task)


def _turned(task: Task) -> Task:
    return replace(task, operands=task.operands[::-1])


# One operand: windows and gathers.


def _single(value: torch.Tensor, task: Task) -> torch.Tensor:
    """Return a sum of one operand's entries: views of windows where the result has places, else a sum over offsets."""
    if (steps := _by_axis(task)) is None:
        return _windowed(value, task)
    dtype, value = value.dtype, widened(value)
    for step in steps:
        written = is_plain(value) and not (torch.is_grad_enabled() and value.requires_grad)
        value = box_sum(value, step) if written else _windowed(value, step)
    return value.to(dtype)


def _windowed(value: torch.Tensor, task: Task) -> torch.Tensor:
    (letters,) = task.operands
    if any(p in task.output for p, _, _ in task.relations):
        return _over_offsets((value,), task)
    summed = any(i not in task.output for _, terms, _ in task.relations for i, _ in terms)
    if summed and prod([task.lengths[i] for i in _run_over(task)]) <= ADDED:
        # View by view: torch copies a sum over overlapping windows.
        return _over_offsets((value,), task)
    for relation in task.relations:
        value, letters = _window(value, letters, relation, task.lengths)
    return _reduced(value, letters, task.output)


@lru_cache(maxsize=4096)
def _by_axis(task: Task) -> tuple[Task, ...] | None:
    """Return a sum over boxes as one sum for each axis; None for another one.

    Each relation places one axis of the result by one of the operand, over letters that neither has: k offsets on d
    axes take d*k views instead of k**d.
    """
    (letters,), terms = task.operands, [{p, *(i for i, _ in pairs)} for p, pairs, _ in task.relations]
    apart = sum(map(len, terms)) == len({i for own in terms for i in own})
    once = len(set(letters)) == len(letters) and all(
        i in task.output or any(i in own for own in terms) for i in letters
    )
    boxes = all(
        len(own & set(letters)) == len(own & set(task.output)) == 1 and not own & set(letters) & set(task.output)
        for own in terms
    )
    lengths = task.lengths
    few = all(prod([lengths[i] for i in own if i not in letters and i not in task.output]) <= ADDED for own in terms)
    if not (apart and once and boxes and few):
        return None
    steps = []
    for own, relation in zip(terms, task.relations, strict=True):
        (old,), (new,) = own & set(letters), own & set(task.output)
        after = task.output if relation is task.relations[-1] else letters.replace(old, new)
        steps.append(Task((letters,), after, (relation,), tuple(s for s in task.sizes if s[0] in own)))
        letters = after
    return tuple(steps)


def _window(
    value: torch.Tensor, letters: Letters, relation: Relation, lengths: Mapping[str, int]
) -> tuple[torch.Tensor, Letters]:
    """Replace an axis by those of the combination that places it."""
    position, terms, start = relation
    axis = letters.index(position)
    letters = letters[:axis] + letters[axis + 1 :]
    if any(i in letters for i, _ in terms) or any(c < 0 for _, c in terms):
        return _gathered(value, axis, letters, relation, lengths)
    last = start + sum(c * (lengths[i] - 1) for i, c in terms)
    sides = [(0, 0)] * axis + [(-start, last + 1 - value.shape[axis])]
    value, at = stretched(value, sides).movedim(axis, -1), axis
    for letter, factor in terms:
        # An axis of all the places that are left, then a window of this letter's places in it.
        whole = value.shape[-1]
        value = value.unfold(-1, whole - factor * (lengths[letter] - 1), factor)
        letters = letters[:at] + letter + letters[at:]
        value, at = value.movedim(-2, at), at + 1
    return value.squeeze(-1), letters


def _gathered(
    value: torch.Tensor, axis: int, letters: Letters, relation: Relation, lengths: Mapping[str, int]
) -> tuple[torch.Tensor, Letters]:
    _, terms, _ = relation
    own = [i for i, _ in terms]
    index = _positions(value, relation, lengths)
    inside = (index >= 0) & (index < value.shape[axis])
    taken = value.index_select(axis, index.clamp(0, value.shape[axis] - 1).reshape(-1))
    taken = taken.unflatten(axis, [lengths[i] for i in own]) if own else taken.squeeze(axis)
    if not _all_inside(relation, lengths, value.shape[axis]):
        mask = inside.reshape([lengths[i] for i in own] + [1] * (value.ndim - axis - 1))
        taken = torch.where(mask, taken, torch.zeros((), dtype=value.dtype, device=value.device))
    names = letters[:axis] + "".join(own) + letters[axis:]
    return _diagonals(taken, names)


def _diagonals(value: torch.Tensor, letters: Letters) -> tuple[torch.Tensor, Letters]:
    while (twice := next((i for i in letters if letters.count(i) > 1), None)) is not None:
        a, b = letters.index(twice), letters.rindex(twice)
        value = value.diagonal(0, a, b)
        letters = letters[:a] + letters[a + 1 : b] + letters[b + 1 :] + twice
    return value, letters


def _positions(like: torch.Tensor, relation: Relation, lengths: Mapping[str, int]) -> torch.Tensor:
    """Return the position at each value of the combination's indices, flat where there is none."""
    _, terms, start = relation
    index = torch.full([1] * len(terms), start, device=like.device)
    for k, (letter, factor) in enumerate(terms):
        shape = [1] * len(terms)
        shape[k] = lengths[letter]
        index = index + factor * torch.arange(lengths[letter], device=like.device).reshape(shape)
    return index


def _all_inside(relation: Relation, lengths: Mapping[str, int], size: int) -> bool:
    _, terms, start = relation
    least = start + sum(min(0, c) * (lengths[i] - 1) for i, c in terms)
    greatest = start + sum(max(0, c) * (lengths[i] - 1) for i, c in terms)
    return least >= 0 and greatest < size


def _reduced(value: torch.Tensor, letters: Letters, output: Letters) -> torch.Tensor:
    gone = [k for k, i in enumerate(letters) if i not in output]
    value = value.sum(gone) if gone else value
    kept = [i for i in letters if i in output]
    return value.permute([kept.index(i) for i in output])


# Sums over offsets.


def _over_offsets(operands: tuple[torch.Tensor, ...], task: Task) -> torch.Tensor:
    """Return a product by running over as few indices as leave one term in every relation.

    The parts of the offsets are added in float32 where the tensors have 16 bits.
    """
    lengths, run = _lengths(operands, task), _run_over(task)
    if len(operands) == 1 and prod([lengths[i] for i in run]) > VIEWED and _is_scatter(task):
        return _scattered(operands[0], task)
    margins = {r[0]: _margins(r, lengths) for r in task.relations}
    moved = [_with_margins(t, names, margins) for t, names in zip(operands, task.operands, strict=True)]
    offsets = [dict(zip(run, at, strict=True)) for at in combinations(*(range(lengths[i]) for i in run))]
    placed = any(p in task.output for p in margins)
    kept = [i for i in task.output if i in run]
    total: torch.Tensor | None = None
    parts: dict[tuple[int, ...], torch.Tensor] = {}
    for at in offsets:
        views = [_view(t, names, task, margins, at) for t, names in zip(moved, task.operands, strict=True)]
        if not placed:
            rest = "".join(i for i in task.output if i not in run)
            value, key = _pair(views, rest, lengths), tuple(at[i] for i in kept)
            parts[key] = parts[key] + value if key in parts else widened(value)
            continue
        if total is None:
            whole = [lengths[i] + sum(margins.get(i, (0, 0))) for i in task.output]
            total = widened(operands[0].new_zeros(whole))
        target, rest, backwards = _target(total, task.output, task, margins, at)
        target += flip(_pair(views, rest, lengths), rest, backwards)
    if total is not None:
        for axis, letter in enumerate(task.output):
            total = total.narrow(axis, margins.get(letter, (0, 0))[0], lengths[letter])
        return total.to(operands[0].dtype)
    parts = {key: part.to(operands[0].dtype) for key, part in parts.items()}
    if not kept:
        (value,) = parts.values()
        return value
    value = torch.stack([parts[tuple(at)] for at in combinations(*(range(lengths[i]) for i in kept))])
    value = value.unflatten(0, [lengths[i] for i in kept])
    names = "".join(kept) + "".join(i for i in task.output if i not in run)
    return value.permute([names.index(i) for i in task.output])


def _lengths(operands: Sequence[torch.Tensor], task: Task) -> dict[str, int]:
    found = {
        i: n for t, names in zip(operands, task.operands, strict=True) for i, n in zip(names, t.shape, strict=True)
    }
    return found | task.lengths


@lru_cache(maxsize=4096)
def _run_over(task: Task) -> Letters:
    """Return the letters to run over: the fewest places such that every relation has at most one other letter."""
    lengths = task.lengths
    # A diagonal of the result cannot run backwards: its letter is run over.
    written = [i for p, terms, _ in task.relations if p in task.output for i, _ in terms] + list(task.output)
    ways = [
        [frozenset(i for i, _ in terms if i != left) for left, c in terms if c > 0 or written.count(left) < 2]
        + [frozenset(i for i, _ in terms)]
        for _, terms, _ in task.relations
    ]
    found = {frozenset(i for part in chosen for i in part) for chosen in combinations(*ways)}
    best = min(found, key=lambda run: (prod([lengths[i] for i in run]), sorted(run)))
    return "".join(sorted(best))


def _margins(relation: Relation, lengths: Mapping[str, int]) -> tuple[int, int]:
    """Return the number of positions before and after p's range that the combination reaches."""
    position, terms, start = relation
    least = start + sum(min(0, c) * (lengths[i] - 1) for i, c in terms)
    greatest = start + sum(max(0, c) * (lengths[i] - 1) for i, c in terms)
    return max(0, -least), max(0, greatest + 1 - lengths[position])


def _with_margins(value: torch.Tensor, letters: Letters, margins: Mapping[str, tuple[int, int]]) -> torch.Tensor:
    pad = [n for letter in reversed(letters) for n in margins.get(letter, (0, 0))]
    return functional.pad(value, pad) if any(pad) else value


Margins = Mapping[str, tuple[int, int]]


def _view(
    value: torch.Tensor, letters: Letters, task: Task, margins: Margins, at: Mapping[str, int]
) -> tuple[torch.Tensor, Letters]:
    """Return a tensor's entries at these offsets, with its letters: its relation's other letter stands for p."""
    value, names, backwards = _stepped(value, letters, task, margins, at)
    axes = [k for k, letter in enumerate(backwards) if letter]
    return _diagonals(value.flip(axes) if axes else value, names)


def _target(
    value: torch.Tensor, letters: Letters, task: Task, margins: Margins, at: Mapping[str, int]
) -> tuple[torch.Tensor, Letters, Letters]:
    """Return a view to write to, its letters, and those of them that run backwards in it."""
    value, names, backwards = _stepped(value, letters, task, margins, at)
    return *_diagonals(value, names), "".join(filter(None, backwards))


def _stepped(
    value: torch.Tensor, letters: Letters, task: Task, margins: Margins, at: Mapping[str, int]
) -> tuple[torch.Tensor, Letters, list[str]]:
    """Return a view at these offsets, the letter of each of its axes, and the same where an axis runs backwards."""
    placed = {p: (terms, start) for p, terms, start in task.relations}
    names, backwards = "", []
    for letter in letters:
        axis = len(names)
        if letter in at:
            value = value.select(axis, at[letter])
        elif letter in placed:
            terms, start = placed[letter]
            start += margins[letter][0] + sum(c * at[i] for i, c in terms if i in at)
            left = [(i, c) for i, c in terms if i not in at]
            if not left:
                value = value.select(axis, start)
                continue
            ((other, step),) = left
            length = task.lengths[other]
            first = start if step > 0 else start + step * (length - 1)
            cut = [slice(None)] * axis + [slice(first, first + abs(step) * (length - 1) + 1, abs(step))]
            value, names = value[tuple(cut)], names + other
            backwards.append(other if step < 0 else "")
        else:
            names += letter
            backwards.append("")
    return value, names, backwards


def _pair(views: Sequence[tuple[torch.Tensor, Letters]], rest: Letters, lengths: Mapping[str, int]) -> torch.Tensor:
    """Return the product of one or two tensors, summed over the letters that are not asked for."""
    if len(views) == 2 and _faces(views[0][1], views[1][1], rest):
        (a, left), (b, right) = views
        names = "".join(i for i in rest if i in left or i in right)
        value = torch.einsum(f"{left},{right}->{names}", a, b)
    else:
        names = "".join(dict.fromkeys("".join(n for _, n in views)))
        spread = [_spread(t, n, names) for t, n in views]
        value = spread[0] if len(views) == 1 else spread[0] * spread[1]
        gone = [k for k, i in enumerate(names) if i not in rest]
        value = value.sum(gone) if gone else value
        names = "".join(i for i in names if i in rest)
    missing = [i for i in rest if i not in names]
    value = value.permute([names.index(i) for i in rest if i in names])
    for axis, letter in enumerate(rest):
        value = value.unsqueeze(axis) if letter in missing else value
    return value.expand([lengths[i] for i in rest])


def _faces(left: Letters, right: Letters, rest: Letters) -> bool:
    """Return whether a product is one of matrices: something is summed, and both sides keep letters of their own."""
    own = [i for i in left if i not in right and i in rest], [i for i in right if i not in left and i in rest]
    return any(i in right and i not in rest for i in left) and bool(own[0]) and bool(own[1])


def _spread(value: torch.Tensor, letters: Letters, names: Letters) -> torch.Tensor:
    value = value.permute([letters.index(i) for i in names if i in letters])
    for axis, letter in enumerate(names):
        value = value if letter in letters else value.unsqueeze(axis)
    return value


def _is_scatter(task: Task) -> bool:
    if len(task.relations) != 1:
        return False
    own = {i for i, _ in task.relations[0][1]}
    return own <= set(task.operands[0]) and not own & set(task.output) and task.relations[0][0] in task.output


def _scattered(value: torch.Tensor, task: Task) -> torch.Tensor:
    """Return the sum of one operand's entries at each position: the transpose of a gather."""
    ((position, terms, _),), (letters,) = task.relations, task.operands
    own = "".join(i for i, _ in terms)
    rest = "".join(i for i in task.output if i != position)
    value = _pair([(value, letters)], own + rest, _lengths((value,), task))
    index = _positions(value, task.relations[0], task.lengths).reshape(-1)
    length = task.lengths[position]
    inside = (index >= 0) & (index < length)
    # What falls outside is added to a position of its own, which is cut off.
    index = torch.where(inside, index, torch.full_like(index, length))
    value = value.reshape(index.numel(), *value.shape[len(own) :])
    total = value.new_zeros((length + 1, *value.shape[1:])).index_add(0, index, value)[:length]
    names = position + rest
    return total.permute([names.index(i) for i in task.output])
