"""`einsum`: classic einsum on torch tensors, planned with repeated operands recognised."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from operator import index

import torch
from torch import Tensor, fx, nn

from polyattn.algebra import Index
from polyattn.errors import SizeError, SpecError
from polyattn.lowering.devices import calibrated, kind, products_dtype
from polyattn.lowering.emit import Emitter
from polyattn.lowering.functions import FUNCTIONS, constant_result, keep
from polyattn.lowering.module import LoweredGraph, as_function
from polyattn.planning import CPU, Device, Graph, Leaf
from polyattn.planning.builder import Builder
from polyattn.planning.steps import ONE
from polyattn.planning.trees import KEPT, ranked_orders

Labels = tuple[str, ...]
"""A label for each axis: a letter, or "...k" for the k-th axis from the right under an ellipsis."""

LETTERS = string.ascii_letters


def einsum(equation: str, *operands: Tensor | Sequence[Tensor]) -> Tensor:
    """Compute `torch.einsum` in the cheapest order, with repeated operands recognised.

    Operands that are the same object are one tensor to the planner: `ij,jk,lk,zl->iz` of (A, B, B, A) takes two matrix
    products, since the last two factors are the first two transposed.

    Args:
        equation: such as "bij,bjk->bik"; implicit output, ellipsis, repeated indices (diagonals and traces), and
            axes of length 1 that broadcast, as in `torch.einsum`.
        operands: tensors of any one dtype, as separate arguments or in one list.

    Raises:
        TypeError: the equation is not a string, or an operand not a tensor; names the remedy.
        SpecError: the equation is not well formed, or does not fit the number of operands.
        SizeError: the number of an operand's axes does not fit, or an index has two lengths.

    >>> import torch
    >>> a, b = torch.ones(2, 3), torch.ones(3, 4)
    >>> einsum("ij,jk->ik", a, b).shape
    torch.Size([2, 4])
    """
    given = _tensors(equation, operands)
    first = tuple(next(k for k, other in enumerate(given) if other is o) for o in given)
    # index(): a length that a compiler keeps symbolic becomes the number that the plan is made for.
    shapes = tuple(tuple(index(n) for n in o.shape) for o in given)
    if any(0 in shape for shape in shapes):  # zeros, if anything: no order is cheaper than another
        _lengths(parse_einsum(equation, [len(s) for s in shapes])[0], shapes, equation)
        return torch.einsum(equation, *given)
    name = planned_einsum(equation, shapes, first, given[0].device.type, products_dtype(given[0]))
    distinct = [o for k, o in enumerate(given) if first[k] == k]
    return getattr(FUNCTIONS, name)(*distinct)


def _tensors(equation: object, operands: Sequence[object]) -> list[Tensor]:
    """Return the operands, unpacked if they are in one list.

    Raises:
        TypeError: the equation is not a string, or an operand is not a tensor.
        SpecError: `operands` is empty.
    """
    if not isinstance(equation, str):
        raise TypeError(
            f"the equation must be text, such as 'ij,jk->ik', not {type(equation).__name__}; "
            "for operands with sublists of numbers write their indices as letters"
        )
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = operands[0]
    if not operands:
        raise SpecError("einsum needs at least one operand")
    found: list[Tensor] = []
    for number, operand in enumerate(operands):
        if not isinstance(operand, Tensor):
            raise TypeError(
                f"operand {number} must be a torch.Tensor, not {type(operand).__name__}; make one with torch.as_tensor"
            )
        found.append(operand)
    return found


@constant_result
def planned_einsum(
    equation: str, shapes: tuple[tuple[int, ...], ...], first: tuple[int, ...], device: str, dtype: str
) -> str:
    """Return the name in `FUNCTIONS` of an einsum's function of the distinct tensors among its operands.

    Args:
        shapes: shapes of the operands.
        first: for each operand the position of its first occurrence.
        device, dtype: device type and dtype of the products, for the cost model.
    """
    # The calibration is part of the cache key, so a new one plans anew.
    return _planned_einsum(equation, tuple(tuple(map(int, s)) for s in shapes), first, calibrated(kind(device), dtype))


@lru_cache(maxsize=4096)
def _planned_einsum(equation: str, shapes: tuple[tuple[int, ...], ...], first: tuple[int, ...], device: Device) -> str:
    return keep(as_function(einsum_graph(equation, shapes, first, device)))


def einsum_graph(
    equation: str, shapes: Sequence[tuple[int, ...]], first: Sequence[int], device: Device = CPU
) -> fx.GraphModule:
    """Lower an einsum to a graph with one argument for each distinct tensor; see `einsum_plan`."""
    best = einsum_plan(equation, shapes, first, device)
    emitter = Emitter(best, best.names(), fx.Graph())
    values = {}
    for tensor in (f"a{k}" for k in dict.fromkeys(first)):
        value = emitter.graph.placeholder(tensor)
        # The first placeholder gives constants their dtype and device.
        emitter.reference = emitter.reference or value
        values[tensor] = value
    emitter.run({n.tensor: _squeezed(emitter, n.tensor, values) for n in best.nodes if isinstance(n, Leaf)})
    emitter.graph.output(emitter.values[best.outputs[0].value])
    emitter.graph.lint()
    return LoweredGraph(nn.Module(), emitter.graph, class_name="Einsum")


def einsum_plan(equation: str, shapes: Sequence[tuple[int, ...]], first: Sequence[int], device: Device = CPU) -> Graph:
    """Return the evaluation graph of an einsum: the cheapest by the roofline among its best trees.

    Args:
        shapes: shapes of the operands.
        first: for each operand the position of its first occurrence.
        device: for the cost model.
    """
    terms, output = parse_einsum(equation, [len(s) for s in shapes])
    lengths = _lengths(terms, shapes, equation)
    # A tree's rank ignores sharing between equal operands; the roofline of the whole graph counts it.
    return min((_graph(terms, output, shapes, first, lengths, rank) for rank in range(KEPT)), key=device.seconds)


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
    if any(c not in LETTERS for c in before + after):
        bad = next(c for c in before + after if c not in LETTERS)
        raise SpecError(f"{bad!r} is no index: indices are letters", equation, 1, equation.index(bad) + 1)
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


def _lengths(terms: Sequence[Labels], shapes: Sequence[tuple[int, ...]], equation: str) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for number, (labels, shape) in enumerate(zip(terms, shapes, strict=True)):
        for axis, (label, length) in enumerate(zip(labels, shape, strict=True)):
            # Length 1 broadcasts to any other.
            have = lengths.get(label, 1)
            if have != length and 1 not in (have, length):
                shown = "an ellipsis axis" if label.startswith(".") else f"index {label!r}"
                raise SizeError(
                    f"{shown} of {equation!r} has length {have}, but axis {axis} of operand {number} has {length}"
                )
            lengths[label] = length if have == 1 else have
    return lengths


def _graph(
    terms: Sequence[Labels],
    output: Labels,
    shapes: Sequence[tuple[int, ...]],
    first: Sequence[int],
    lengths: dict[str, int],
    rank: int,
) -> Graph:
    """Return the evaluation graph with the product's tree of the given rank, without broadcast axes of length 1."""
    indices = {label: Index(k, str(length)) for k, (label, length) in enumerate(lengths.items())}
    builder = Builder({})
    operands = []
    for labels, shape, tensor in zip(terms, shapes, first, strict=True):
        stretched = [n == 1 and lengths[label] != 1 for label, n in zip(labels, shape, strict=True)]
        # A tensor read with different axes squeezed is a different leaf, so the name lists them.
        name = f"a{tensor}" + "".join(f"_{k}" for k, s in enumerate(stretched) if s)
        have = tuple(indices[label] for label, s in zip(labels, stretched, strict=True) if not s)
        operands.append(builder.leaf(name, have))
    keep_ = [indices[label] for label in output]
    result, _ = builder.product(operands, keep_, ONE, ranked_orders({}, rank))
    return Graph.of(builder.nodes, [builder.permuted(result, tuple(keep_))], {})


def _squeezed(emitter: Emitter, leaf: str, values: dict[str, fx.Node]) -> fx.Node:
    """Squeeze the axes listed in a leaf's name, as in "a0_1_2"."""
    tensor, *axes = leaf.split("_")
    value = values[tensor]
    # From the last axis on, so that the earlier positions stay valid.
    for axis in sorted(map(int, axes), reverse=True):
        value = emitter.method("squeeze", value, axis)
    return value
