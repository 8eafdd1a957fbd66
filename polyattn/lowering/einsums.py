"""`einsum`: classic einsum on torch tensors, planned with repeated operands recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from functools import lru_cache
from operator import index

import torch
from torch import Tensor, fx, nn

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.errors import SizeError, SpecError
from polyattn.lowering.devices import calibrated, kind, products_dtype
from polyattn.lowering.einsum_text import Labels, as_text, lengths_of, parse_einsum
from polyattn.lowering.emit import Emitter
from polyattn.lowering.functions import FUNCTIONS, constant_result, is_static, is_traced, keep, untraced
from polyattn.lowering.module import LoweredGraph, as_function
from polyattn.lowering.open_lengths import OPEN, named, nominal, read_lengths
from polyattn.planning import CPU, Device, Graph, Leaf
from polyattn.planning.builder import Builder, Order
from polyattn.planning.costs import COSTS, cost_function
from polyattn.planning.from_joint import joint_products
from polyattn.planning.large import Tree, large_trees, shared_trees
from polyattn.planning.steps import ONE
from polyattn.planning.trees import KEPT, fixed_order, pairs_of, ranked_orders

NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)

KEPT_EINSUMS = 1024
"""Functions of einsums that a process keeps; the one that was used last goes last."""

RANKED_UP_TO = 6
"""Operands up to which several of the best trees are compared, and all evaluations that share what is repeated."""

LARGE = 2
"""Trees of products of many factors that are compared."""


def einsum(equation: object, *operands: object, cost: str = "roofline") -> Tensor:
    """Compute `torch.einsum` in the cheapest order, with repeated operands recognised.

    Operands that are the same object are one tensor to the planner: `ij,jk,lk,zl->iz` of (A, B, B, A) takes two matrix
    products, since the last two factors are the first two transposed. So are views of one storage with the same axes,
    such as `B.T` and `B.detach()`, where no gradient is asked for.

    Args:
        equation: such as "bij,bjk->bik"; implicit output, ellipsis, repeated indices (diagonals and traces), and
            axes of length 1 that broadcast, as in `torch.einsum`. Any character but space, comma, point, "-" and ">"
            is an index.
        operands: tensors of any one dtype but bool, as separate arguments or in one list. Without an equation,
            tensors and lists of their indices (numbers, or ... for an ellipsis) in turn, and the output's at the end.
        cost: "roofline" (seconds on the device, by its calibration) or "macs": by which orders are compared.

    Raises:
        TypeError: the equation is not a string, an operand not a tensor, or its dtype bool or another than the first's;
            names the remedy.
        SpecError: the equation is not well formed, or does not fit the number of operands.
        SizeError: the number of an operand's axes does not fit, an index has two lengths, or `cost` is unknown.

    >>> import torch
    >>> a, b = torch.ones(2, 3), torch.ones(3, 4)
    >>> einsum("ij,jk->ik", a, b).shape
    torch.Size([2, 4])
    """
    if cost not in COSTS:
        raise SizeError(f"unknown `cost` {cost!r}; there are {', '.join(COSTS)}")
    if isinstance(equation, Tensor):
        equation, operands = as_text((equation, *operands))
    given = _tensors(equation, operands)
    assert isinstance(equation, str)
    _check_dtypes(given)
    follows = is_traced()
    with untraced() if follows else nullcontext():
        first, equation = same_tensors(equation, given)
        # A tracer follows every length but those of 1, which broadcast.
        shapes = tuple(
            [
                tuple([index(n) if is_static(n) and not (follows and n > 1) else OPEN for n in given[k].shape])
                for k in first
            ]
        )
    if any(0 in shape for shape in shapes):  # zeros, if anything: no order is cheaper than another
        if not any(OPEN in shape for shape in shapes):
            lengths_of(parse_einsum(equation, [len(s) for s in shapes])[0], shapes, equation)
        return torch.einsum(equation, *given)
    device, products = given[0].device.type, products_dtype(given[0])
    if torch.compiler.is_compiling():
        function = getattr(FUNCTIONS, planned_einsum(equation, shapes, first, device, products, cost))
    else:
        # The calibration is part of the cache key, so a new one plans anew.
        function = _function(equation, shapes, first, calibrated(kind(device), products), cost)
    distinct = [o for k, o in enumerate(given) if first[k] == k]
    dtype = given[0].dtype
    if dtype in NARROW and len(given) > 1:
        # Torch adds narrow integers up in 64 bits, whose lowest bits are those of the narrow sum.
        return function(*(o.to(torch.int64) for o in distinct)).to(dtype)
    return function(*distinct)


def _check_dtypes(given: Sequence[Tensor]) -> None:
    dtypes = [o.dtype for o in given]
    for number, dtype in enumerate(dtypes):
        if dtype == torch.bool:
            raise TypeError(f"operand {number} must hold numbers, not torch.bool; convert it with .to(torch.int64)")
        mixed = dtype != dtypes[0] and not torch.is_autocast_enabled(given[0].device.type)
        if mixed:
            raise TypeError(
                f"operand {number} must have the first operand's dtype {dtypes[0]}, not {dtype}; convert it with .to()"
            )


def same_tensors(equation: str, given: Sequence[Tensor]) -> tuple[tuple[int, ...], str]:
    """Return for each operand the position of its first occurrence, and the equation in the axes of those.

    Operands are one tensor if they are one object, or if they are views of the same entries of one storage and no
    gradient goes through them: a gradient belongs to the tensor that was given, which need not be the first.
    """
    first = [next(k for k, other in enumerate(given) if other is o) for o in given]
    head, arrow, output = equation.replace(" ", "").partition("->")
    texts = head.split(",")
    if len(texts) != len(given) or torch.compiler.is_compiling():
        return tuple(first), equation
    known: dict[object, int] = {}
    for number, operand in enumerate(given):
        if first[number] != number:
            first[number] = first[first[number]]
            continue
        key = _entries(operand)
        if key is None or "." in texts[number] or len(texts[number]) != operand.dim():
            continue
        other = known.setdefault(key, number)
        if other != number:
            first[number] = other
    for number, operand in enumerate(given):
        source = given[first[number]]
        if source is not operand and len(texts[number]) == operand.dim():
            # The letters in the order of the other view's axes, which memory tells apart by their strides.
            letters = dict(zip(operand.stride(), texts[number], strict=True))
            texts[number] = "".join(letters[s] for s in source.stride())
    return tuple(first), ",".join(texts) + arrow + output


def _entries(operand: Tensor) -> object | None:
    """Return a key of the memory that a plain tensor reads, the order of its axes aside; None if it has none."""
    if type(operand) not in (Tensor, nn.Parameter) or operand.layout != torch.strided or operand.is_meta:
        return None
    if torch.is_grad_enabled() and operand.requires_grad:
        return None
    axes = sorted(zip(operand.stride(), operand.shape, strict=True))
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    if len({stride for stride, _ in axes}) < len(axes) or wrapped(operand):
        return None
    memory = operand.untyped_storage().data_ptr()
    return (memory, operand.storage_offset(), operand.dtype, operand.is_conj(), operand.is_neg(), tuple(axes))


def _tensors(equation: object, operands: Sequence[object]) -> list[Tensor]:
    """Return the operands, unpacked if they are in one list.

    Raises:
        TypeError: the equation is not a string, or an operand is not a tensor.
        SpecError: `operands` is empty.
    """
    if not isinstance(equation, str):
        raise TypeError(
            f"the equation must be text, such as 'ij,jk->ik', not {type(equation).__name__}; "
            "or give tensors and lists of their indices in turn"
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
    equation: str, shapes: tuple[tuple[int, ...], ...], first: tuple[int, ...], device: str, dtype: str, cost: str
) -> str:
    """Return the name in `FUNCTIONS` of an einsum's function of the distinct tensors among its operands.

    Args:
        shapes: shapes of the operands, with `OPEN` for lengths that the function reads.
        first: for each operand the position of its first occurrence.
        device, dtype: device type and dtype of the products, for the cost model.
        cost: "roofline" or "macs".
    """
    known = tuple(tuple(map(int, s)) for s in shapes)
    return _kept(equation, known, first, calibrated(kind(device), dtype), cost)


@lru_cache(maxsize=KEPT_EINSUMS)
def _kept(equation: str, shapes: tuple[tuple[int, ...], ...], first: tuple[int, ...], device: Device, cost: str) -> str:
    return keep(_function(equation, shapes, first, device, cost))


@lru_cache(maxsize=KEPT_EINSUMS)
def _function(
    equation: str, shapes: tuple[tuple[int, ...], ...], first: tuple[int, ...], device: Device, cost: str
) -> Callable[..., Tensor]:
    return as_function(einsum_graph(equation, shapes, first, device, cost))


def einsum_graph(
    equation: str,
    shapes: Sequence[tuple[int, ...]],
    first: Sequence[int],
    device: Device = CPU,
    cost: str = "roofline",
) -> fx.GraphModule:
    """Lower an einsum to a graph with one argument for each distinct tensor; see `einsum_plan`.

    Args:
        shapes: shapes of the operands, with `OPEN` for lengths that the graph reads from its arguments.
    """
    terms, _ = parse_einsum(equation, [len(s) for s in shapes])
    shapes, read = nominal(terms, shapes)
    best = named(einsum_plan(equation, shapes, first, device, cost), read)
    # A matrix extended by zeros saves a copy, and takes more multiply-accumulates.
    unfilled = {i.size for n in best.nodes for i in n.output} if cost == "macs" else set()
    emitter = Emitter(best, best.names(), fx.Graph(), long=frozenset(unfilled))
    values = {}
    for tensor in (f"a{k}" for k in dict.fromkeys(first)):
        value = emitter.graph.placeholder(tensor)
        # The first placeholder gives constants their dtype and device.
        emitter.reference = emitter.reference or value
        values[tensor] = value
    read_lengths(emitter, terms, shapes, [values[f"a{k}"] for k in first], read)
    emitter.run({n.tensor: _squeezed(emitter, n.tensor, values) for n in best.nodes if isinstance(n, Leaf)})
    emitter.graph.output(emitter.values[best.outputs[0].value])
    emitter.graph.eliminate_dead_code()
    emitter.graph.lint()
    return LoweredGraph(nn.Module(), emitter.graph, class_name="Einsum")


def einsum_plan(
    equation: str,
    shapes: Sequence[tuple[int, ...]],
    first: Sequence[int],
    device: Device = CPU,
    cost: str = "roofline",
) -> Graph:
    """Return the evaluation graph of an einsum: the cheapest among its best trees, and those that share most.

    Args:
        shapes: shapes of the operands.
        first: for each operand the position of its first occurrence.
        device: for the cost model.
        cost: "roofline" or "macs".
    """
    terms, output = parse_einsum(equation, [len(s) for s in shapes])
    product = _Product(terms, output, shapes, first, lengths_of(terms, shapes, equation))
    price = cost_function(cost, device)
    # A tree's rank ignores sharing between equal operands; the price of the whole graph counts it.
    return min(product.graphs(cost), key=lambda g: (price(g), g.macs))


class _Product:
    """A product of operands, without broadcast axes of length 1."""

    def __init__(
        self,
        terms: Sequence[Labels],
        output: Labels,
        shapes: Sequence[tuple[int, ...]],
        first: Sequence[int],
        lengths: dict[str, int],
    ):
        indices = {label: Index(k, str(length)) for k, (label, length) in enumerate(lengths.items())}
        self.factors: list[tuple[str, tuple[Index, ...]]] = []
        for labels, shape, tensor in zip(terms, shapes, first, strict=True):
            stretched = [n == 1 and lengths[label] != 1 for label, n in zip(labels, shape, strict=True)]
            # A tensor read with different axes squeezed is a different leaf, so the name lists them.
            name = f"a{tensor}" + "".join(f"_{k}" for k, s in enumerate(stretched) if s)
            have = tuple(indices[label] for label, s in zip(labels, stretched, strict=True) if not s)
            self.factors.append((name, have))
        self.keep = tuple(indices[label] for label in output)

    def orders(self, cost: str) -> Iterator[Order]:
        """Yield orders of contraction: the best trees of distinct factors, and those that share what is repeated."""
        names, indices = zip(*self.factors, strict=True)
        count, keep = len(names), frozenset(self.keep)
        trees: list[Tree] = []
        if count <= RANKED_UP_TO and not (cost == "macs" and self.distinct):
            for rank in range(KEPT):
                yield ranked_orders({}, rank)
        else:
            trees += large_trees(indices, keep, _length)[:LARGE]
        if not self.distinct:
            trees += shared_trees(indices, names, keep, _length)
        for tree in trees:
            yield fixed_order(pairs_of(tree, count))

    @property
    def distinct(self) -> bool:
        """Return whether no factor is there twice."""
        return len({name for name, _ in self.factors}) == len(self.factors)

    def graphs(self, cost: str) -> Iterator[Graph]:
        for order in self.orders(cost):
            yield self.graph(order)
        if not self.distinct and len(self.factors) <= RANKED_UP_TO:
            factors = tuple(TensorFactor(name, at) for name, at in self.factors)
            yield from joint_products(Monomial(Fraction(1), (), factors), self.keep)

    def graph(self, order: Order) -> Graph:
        builder = Builder({})
        operands = [builder.leaf(name, at) for name, at in self.factors]
        result, _ = builder.product(operands, self.keep, ONE, order)
        return Graph.of(builder.nodes, [builder.permuted(result, self.keep)], {})


def _length(i: Index) -> int:
    return int(i.size)


def _squeezed(emitter: Emitter, leaf: str, values: dict[str, fx.Node]) -> fx.Node:
    """Squeeze the axes listed in a leaf's name, as in "a0_1_2"."""
    tensor, *axes = leaf.split("_")
    value = values[tensor]
    # From the last axis on, so that the earlier positions stay valid.
    for axis in sorted(map(int, axes), reverse=True):
        value = emitter.method("squeeze", value, axis)
    return value
