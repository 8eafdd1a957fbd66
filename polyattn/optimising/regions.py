"""Regions of a graph: the largest sets of nodes with one result that an equation may say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from polyattn.optimising.pricing import Operation

LARGEST = 12
"""Products of two tensors in one region; a larger one is cut at its functions."""
NODES = 120
LINEAR = {
    *("add", "sub", "rsub", "mul", "div", "neg", "sum", "mean", "clone", "cat", "stack", "copy_", "_to_copy"),
    *("mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "convolution", "einsum", "reciprocal", "constant_pad_nd"),
    *("select_backward", "pow", "cumsum", "repeat", "empty_like", "full_like", "fill"),
}
"""Operations through which products may be brought into another order; others are functions."""
REPLACED = {"_softmax"}
"""Functions between two products that planned code fuses with them."""
KEPT = {*REPLACED, "exp", "where", "masked_fill", "tril", "triu", "amax", "logsumexp", "clamp", "sqrt", "abs"}
"""Functions that a region may have inside; it ends at others, which no product crosses."""


@dataclass(frozen=True)
class Region:
    """Nodes with one result.

    Attributes:
        nodes: in the order of execution; the last one is the result.
        inputs: the nodes whose values it takes.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]

    @property
    def result(self) -> fx.Node:
        return self.nodes[-1]


def regions(
    graph: fx.Graph, values: dict[fx.Node, Any], operations: dict[fx.Node, list[Operation]], barred: set[fx.Node]
) -> Iterator[Region]:
    """Yield regions, the last result first; each node is in one of them at most.

    A node is in a region if all its readers are, so that nothing is computed twice. Regions end at functions that no
    product crosses.

    Args:
        values: the result of each node.
        operations: operations that ran behind each node.
        barred: nodes that no region may have; others may be added while regions are drawn.
    """
    gone: set[fx.Node] = set()
    places = {n: k for k, n in enumerate(graph.nodes)}
    for node in reversed(graph.nodes):
        if node in gone or node in barred or not _may_end(node, values) or _ends(operations.get(node, [])):
            continue
        ends = {n for n in graph.nodes if _ends(operations.get(n, []))}
        found = region_of(node, values, barred | gone | ends, places)
        while is_large(found, operations):
            functions = {n for n in found.nodes[:-1] if _is_function(operations.get(n, []))}
            if not functions:
                break
            found = region_of(node, values, barred | gone | ends | functions, places)
        gone.update(found.nodes)
        if found.nodes:
            yield found


def is_large(region: Region, operations: dict[fx.Node, list[Operation]]) -> bool:
    """Return whether a region is too large to be read at once."""
    products = sum(o.contracts for n in region.nodes for o in operations.get(n, []))
    return products > LARGEST or len(region.nodes) > NODES


def _may_end(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    value = values.get(node)
    return node.op.startswith("call_") and isinstance(value, torch.Tensor) and value.is_floating_point()


def region_of(result: fx.Node, values: dict[fx.Node, Any], barred: set[fx.Node], places: dict[fx.Node, int]) -> Region:
    """Return the largest region with a given result; without nodes if no region has this one."""
    inside = _readers_inside(result, barred, places)
    while apart := _apart(inside, values):
        if result in apart:
            return Region((), ())
        barred = barred | apart
        inside = _readers_inside(result, barred, places)
    # Numbers that follow from shapes are computed again where they are used.
    copied: set[fx.Node] = set()
    stack = [a for n in inside for a in n.all_input_nodes]
    while stack:
        node = stack.pop()
        if node in inside or node in copied or node.op not in ("call_function", "call_method"):
            continue
        if not _has_tensor(values.get(node)):
            copied.add(node)
            stack += node.all_input_nodes
    nodes = sorted(inside | copied, key=places.__getitem__)
    taken = {a for n in nodes for a in n.all_input_nodes if a not in inside and a not in copied and a.op != "get_attr"}
    return Region(tuple(nodes), tuple(sorted(taken, key=places.__getitem__)))


def _readers_inside(result: fx.Node, barred: set[fx.Node], places: dict[fx.Node, int]) -> set[fx.Node]:
    inside = {result}
    for node in reversed(list(places)[: places[result]]):
        if node.op.startswith("call_") and node not in barred and node.users and all(u in inside for u in node.users):
            inside.add(node)
    return inside


def _apart(inside: set[fx.Node], values: dict[fx.Node, Any]) -> set[fx.Node]:
    """Return nodes that stay outside: parts of a tuple outside, and readers of the shape of an unread tensor."""
    read = {a for n in inside for a in n.all_input_nodes if isinstance(values.get(a), torch.Tensor)}
    read = {a for a in read if any(u in inside and _has_tensor(values.get(u)) for u in a.users)}
    found: set[fx.Node] = set()
    for node in inside:
        outer = [a for a in node.all_input_nodes if a not in inside]
        if any(_is_tuple(values, a) for a in outer) or not _measured(outer, values) <= read | inside:
            found.add(node)
    return found


def _measured(nodes: Sequence[fx.Node], values: dict[fx.Node, Any]) -> set[fx.Node]:
    """Return the tensors from whose shapes numbers follow."""
    found: set[fx.Node] = set()
    stack = [n for n in nodes if not _has_tensor(values.get(n))]
    while stack:
        for source in stack.pop().all_input_nodes:
            if isinstance(values.get(source), torch.Tensor):
                found.add(source)
            else:
                stack.append(source)
    return found


def _is_tuple(values: dict[fx.Node, Any], node: fx.Node) -> bool:
    value = values.get(node)
    return not isinstance(value, torch.Tensor) and _has_tensor(value)


def _has_tensor(value: Any) -> bool:
    return any(isinstance(v, torch.Tensor) for v in pytree.tree_leaves(value))


def _ends(operations: Sequence[Operation]) -> bool:
    return any(is_function(o) and o.name not in KEPT for o in operations)


def _is_function(operations: Sequence[Operation]) -> bool:
    return any(is_function(o) for o in operations)


def is_function(operation: Operation) -> bool:
    """Return whether an operation keeps products before it from joining those behind it."""
    return not (operation.name in LINEAR or operation.views or "scaled_dot_product" in operation.name)


def may_win(region: Region, operations: dict[fx.Node, list[Operation]]) -> bool:
    """Return whether a region has products that another order, or a kernel, might compute for less.

    Two products of tensors with linear operations between them, a sum of a product, or a softmax between two products.
    """
    open_products: dict[fx.Node, set[str]] = {}
    for node in region.nodes:
        have: set[str] = set()
        for source in node.all_input_nodes:
            have |= open_products.get(source, set())
        for operation in operations.get(node, []):
            if operation.contracts:
                if have & {"product", "softmax"}:
                    return True
                have.add("product")
            elif operation.name in ("sum", "mean") and have & {"entries", "product"}:
                return True
            elif operation.multiplies:
                have.add("entries")
            elif operation.name in REPLACED and "product" in have:
                have = {"softmax"}
            elif is_function(operation):
                have = set()
        open_products[node] = have
    return False


def as_module(
    region: Region, root: torch.nn.Module, name: Callable[[int], str], weights: Mapping[fx.Node, str] | None = None
) -> fx.GraphModule:
    """Return a region as a module of its inputs, which holds the root's parameters and submodules by reference.

    Args:
        name: the argument for each input, by its place.
        weights: inputs that are attributes of the root instead.
    """
    graph, known, held = fx.Graph(), {}, dict(weights or {})
    for k, node in enumerate(n for n in region.inputs if n not in held):
        known[node] = graph.placeholder(name(k))
    for node, path in held.items():
        known[node] = graph.get_attr(path)
    for node in region.nodes:
        for source in node.all_input_nodes:
            if source not in known:
                known[source] = graph.node_copy(source, known.__getitem__)
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[region.result])
    return fx.GraphModule(root, graph)
