"""The author's order of contraction for one product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from polyattn.algebra import Index
from polyattn.planning.steps import BATCH


def written_order(indices: Sequence[tuple[Index, ...]], keep: frozenset[Index]) -> list[tuple[int, int]]:
    """Return the author's pairs: embeddings first, then left to right.

    An embedding (a 1x1 convolution) is a parameter with a summed index of its neighbour and of no other operand; it is
    applied to that neighbour first. Then the product is contracted from left to right.
    """
    current = list(enumerate(indices))
    alive = list(range(len(indices)))
    pairs: list[tuple[int, int]] = []

    def contract(left: int) -> None:
        """Contract the operands at positions left and left + 1 of the text, in their place."""
        # `current` keeps the order of the text; `alive` follows the contract of `Pairs`, results at the end.
        (a, first), (b, second) = current[left], current[left + 1]
        pairs.append((alive.index(a), alive.index(b)))
        rest = {i for n, (_, labels) in enumerate(current) if n not in (left, left + 1) for i in labels}
        both = set(first) & set(second)
        labels = tuple(i for i in dict.fromkeys((*first, *second)) if i in keep or i in rest or i not in both)
        new = len(indices) + len(pairs) - 1
        alive[:] = [k for k in alive if k not in (a, b)] + [new]
        current[left : left + 2] = [(new, labels)]

    position = 0
    while position + 1 < len(current):
        if _is_embedding([labels for _, labels in current], position, keep):
            contract(position)
            # The result may be embedded by the operand on its left now.
            position = max(0, position - 1)
        else:
            position += 1
    while len(current) > 1:
        contract(0)
    return pairs


def _is_embedding(current: Sequence[tuple[Index, ...]], left: int, keep: frozenset[Index]) -> bool:
    a, b = current[left], current[left + 1]
    # One side has the batch and the other does not: an activation beside a parameter.
    if any(i.size == BATCH for i in a) == any(i.size == BATCH for i in b):
        return False
    # A diagonal is one use of its index.
    uses = Counter(i for labels in current for i in set(labels))
    return any(uses[i] == 2 and i not in keep for i in set(a) & set(b))
