"""The best trees of one product, against opt_einsum's optimal path."""

from math import prod

import opt_einsum
from hypothesis import given
from hypothesis import strategies as st

from polyattn.algebra import Index
from polyattn.planning.trees import best_trees, pairs_of

SIZES = {"M": 2, "N": 3, "P": 7, "Q": 11}


def cost(pairs, operands, kept):
    """Return the multiply-accumulates of the pairs, each contraction a loop over all indices of its two operands."""
    alive, total = [frozenset(o) for o in operands], 0
    for i, j in pairs:
        b, a = alive.pop(j), alive.pop(i)
        total += prod(SIZES[index.size] for index in a | b)
        alive.append(frozenset(i for i in a | b if i in kept or any(i in other for other in alive)))
    return total


@st.composite
def products(draw):
    indices = [Index(k, draw(st.sampled_from(sorted(SIZES)))) for k in range(draw(st.integers(2, 6)))]
    factors = st.lists(st.sampled_from(indices), min_size=1, max_size=3, unique=True)
    operands = draw(st.lists(factors.map(tuple), min_size=3, max_size=5))
    read = sorted({i for o in operands for i in o}, key=lambda i: i.id)
    return tuple(operands), frozenset(draw(st.lists(st.sampled_from(read), max_size=3, unique=True)))


@given(products())
def test_the_first_tree_is_as_cheap_as_opt_einsums_optimal_path(product):
    operands, kept = product
    (tree, *_) = best_trees(operands, kept, tuple(SIZES.items()))
    letters = {i: opt_einsum.get_symbol(i.id) for o in operands for i in o}
    text = ",".join("".join(letters[i] for i in o) for o in operands) + "->" + "".join(letters[i] for i in kept)
    shapes = [tuple(SIZES[i.size] for i in o) for o in operands]
    path, _ = opt_einsum.contract_path(text, *shapes, shapes=True, optimize="optimal")
    theirs = [tuple(sorted(pair)) for pair in path if len(pair) == 2]
    if len(theirs) == len(operands) - 1:
        assert cost(pairs_of(tree, len(operands)), operands, kept) <= cost(theirs, operands, kept)
