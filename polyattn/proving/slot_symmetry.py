"""Functions with exchangeable slots, because their argument is symmetric: `sigmoid(x[a,d]*x[e,d])`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

from polyattn.algebra import Monomial
from polyattn.proving.certificate_terms import FlatSum


def slot_kinds(total: FlatSum, key: Callable[[Monomial], Any]) -> tuple[int, ...]:
    """Return the kind of each slot: two of one kind may change places, since the argument stays the same sum.

    Args:
        total: a function, its equal terms gathered.
        key: equal for equal terms, with the letters of the sum fixed.
    """
    have = Counter((key(t), t.coefficient) for t in total.terms)
    kinds = list(range(len(total.slots)))
    for (k, i), (m, j) in combinations(enumerate(total.slots), 2):
        # Only slots of one size and one role can be exchanged.
        if i.size != j.size or (i in total.over) != (j in total.over):
            continue
        # As multisets: the exchange may permute the terms.
        if Counter((key(t.renamed({i: j, j: i})), t.coefficient) for t in total.terms) == have:
            kinds[m] = kinds[k]
    return tuple(kinds)
