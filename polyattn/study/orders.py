"""The compared orders of contraction: the author's, opt_einsum's, and the planner's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import opt_einsum

from polyattn.algebra import Index, Spec
from polyattn.errors import SizeError
from polyattn.lowering import whole_plan as plan
from polyattn.planning import Device, Graph, Plan, question
from polyattn.planning.builder import Builder, Pairs
from polyattn.planning.from_definitions import follow_definitions
from polyattn.planning.from_polynomial import contract_monomials
from polyattn.planning.steps import Constant, Identity, Leaf, Node, length

ORDERS = ("as written", "opt_einsum", "planned")
OPTIMAL_UP_TO = 8
"""Factors up to which opt_einsum searches all trees; beyond, its "auto" chooses the method."""


def ordered_plan(
    spec: Spec,
    order: str,
    sizes: Mapping[str, int],
    objective: str,
    *,
    cost: str,
    device: str | Device,
    memory_limit: int | None = None,
    dtype: str = "float32",
) -> Plan:
    """Return the plan of a specification in one of `ORDERS`.

    "as written" follows the author's definitions. "opt_einsum" uses the expanded polynomial, one call of opt_einsum for
    each product, equal steps not shared; with functions, it uses the definitions, one call each. "planned" is
    `polyattn.plan`. The first two leave the backward pass to autograd.

    Raises:
        SizeError: unknown order, or an error of `polyattn.plan`.
    """
    if order == "planned":
        return plan(spec, sizes, objective, cost=cost, device=device, memory_limit=memory_limit, dtype=dtype)
    written = plan(spec, sizes, "as_written")
    if order == "as written":
        return written
    if order != "opt_einsum":
        raise SizeError(f"unknown order {order!r}; there are {', '.join(ORDERS)}")
    known = dict(question(spec, sizes).sizes)
    # opt_einsum sees one product at a time: it cannot share steps or factor sums.
    builder = _Unshared(known, factor_sums=False)
    chosen = _Order(tuple(sorted(known.items())))
    if spec.is_polynomial:
        output = contract_monomials(spec.polynomial(), builder, chosen)
    else:
        output = follow_definitions(spec, builder, chosen)
    graph = Graph.of(builder.nodes, [output], known)
    return Plan(spec, "as_written", "opt_einsum", graph, allocations=written.allocations)


class _Unshared(Builder):
    """A builder that repeats equal steps, as separate calls do; leaves are shared tensors."""

    def add(self, node: Node) -> int:
        if isinstance(node, Leaf | Identity | Constant):
            return super().add(node)
        self.nodes.append(node)
        return len(self.nodes) - 1


class _Order:
    def __init__(self, sizes: tuple[tuple[str, int], ...]):
        self.sizes = sizes

    def __call__(self, indices: Sequence[tuple[Index, ...]], keep: frozenset[Index]) -> Pairs:
        return _pairs(tuple(indices), keep, self.sizes)


@lru_cache(maxsize=4096)
def _pairs(
    indices: tuple[tuple[Index, ...], ...], keep: frozenset[Index], sizes: tuple[tuple[str, int], ...]
) -> tuple[tuple[int, int], ...]:
    """Return opt_einsum's path, with contractions of several operands in steps of two."""
    known = dict(sizes)
    letters = {i: opt_einsum.get_symbol(k) for k, i in enumerate(dict.fromkeys(i for o in indices for i in o))}
    texts = ["".join(letters[i] for i in labels) for labels in indices]
    shapes = [tuple(length(i, known) for i in labels) for labels in indices]
    output = "".join(letters[i] for i in letters if i in keep)
    method = "optimal" if len(indices) <= OPTIMAL_UP_TO else "auto"
    path, _ = opt_einsum.contract_path(f"{','.join(texts)}->{output}", *shapes, shapes=True, optimize=method)
    pairs: list[tuple[int, int]] = []
    count = len(indices)
    for contraction in path:
        places = sorted(contraction)
        # A contraction of several operands becomes pairs; the result of each pair goes to the end of the list.
        while len(places) > 1:
            i, j = places[:2]
            pairs.append((i, j))
            count -= 1
            # Two operands are gone, so the remaining positions move down.
            places = sorted([*(p - (p > i) - (p > j) for p in places[2:]), count - 1])
    return tuple(pairs)
