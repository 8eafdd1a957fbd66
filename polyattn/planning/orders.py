"""Orders of contraction for one product: the author's, and opt_einsum's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import opt_einsum

from polyattn.algebra import Index
from polyattn.language import value_of
from polyattn.planning.builder import Order, Pairs
from polyattn.planning.steps import Sizes

EXACT_UP_TO = 8
"""Up to this many factors opt_einsum searches all orders (`optimal`), above it chooses its own method (`auto`)."""


def written_order(
    indices: Sequence[tuple[Index, ...]], batched: Sequence[bool], keep: frozenset[Index]
) -> list[tuple[int, int]]:
    """The author's order: embeddings first, then left to right.

    A parameter that shares a summed index with its neighbour and with nothing else is an embedding (a 1x1
    convolution) and is applied to that neighbour first; then the product is taken from left to right.
    """
    current = [(k, labels, is_batched) for k, (labels, is_batched) in enumerate(zip(indices, batched, strict=True))]
    alive = list(range(len(indices)))
    pairs: list[tuple[int, int]] = []

    def contract(left: int) -> None:
        """Contract the operands at positions left and left + 1 of the text, in their place."""
        (a, la, ba), (b, lb, bb) = current[left], current[left + 1]
        pairs.append((alive.index(a), alive.index(b)))
        rest = {i for n, (_, labels, _) in enumerate(current) if n not in (left, left + 1) for i in labels}
        both = set(la) & set(lb)
        labels = tuple(i for i in dict.fromkeys((*la, *lb)) if i in keep or i in rest or i not in both)
        new = len(indices) + len(pairs) - 1
        alive[:] = [k for k in alive if k not in (a, b)] + [new]
        current[left : left + 2] = [(new, labels, ba or bb)]

    position = 0
    while position + 1 < len(current):
        if _is_embedding(current, position, keep):
            contract(position)
            position = max(0, position - 1)
        else:
            position += 1
    while len(current) > 1:
        contract(0)
    return pairs


def _is_embedding(current: Sequence[tuple[int, tuple[Index, ...], bool]], left: int, keep: frozenset[Index]) -> bool:
    (_, a, a_batched), (_, b, b_batched) = current[left], current[left + 1]
    if a_batched == b_batched:
        return False
    uses = Counter(i for _, labels, _ in current for i in set(labels))
    return any(uses[i] == 2 and i not in keep for i in set(a) & set(b))


def cheapest_order(sizes: Sizes, batch: int) -> Order:
    """opt_einsum's path at the given sizes; the batch is an index of the operands that depend on the input."""

    def order(indices: Sequence[tuple[Index, ...]], batched: Sequence[bool], keep: frozenset[Index]) -> Pairs:
        if len(indices) == 1:
            return []
        return _path(indices, batched, keep, sizes, batch)

    return order


def _path(
    indices: Sequence[tuple[Index, ...]], batched: Sequence[bool], keep: frozenset[Index], sizes: Sizes, batch: int
) -> list[tuple[int, int]]:
    letters = {i: opt_einsum.get_symbol(k + 1) for k, i in enumerate(dict.fromkeys(i for o in indices for i in o))}
    lead = opt_einsum.get_symbol(0)
    texts = [(lead if b else "") + "".join(letters[i] for i in o) for o, b in zip(indices, batched, strict=True)]
    shapes = [(batch,) * b + tuple(value_of([i.size], sizes) for i in o) for o, b in zip(indices, batched, strict=True)]
    output = (lead if any(batched) else "") + "".join(letters[i] for i in letters if i in keep)
    method = "optimal" if len(indices) <= EXACT_UP_TO else "auto"
    path, _ = opt_einsum.contract_path(f"{','.join(texts)}->{output}", *shapes, shapes=True, optimize=method)
    return [step for contraction in path for step in _pairwise(contraction)]


def _pairwise(contraction: Sequence[int]) -> list[tuple[int, int]]:
    """A contraction of several operands at once, as pairs."""
    if len(contraction) == 2:
        first, second = sorted(contraction)
        return [(first, second)]
    raise AssertionError(f"opt_einsum contracted {len(contraction)} operands at once")
