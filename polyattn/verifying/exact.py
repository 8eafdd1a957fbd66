"""The lowered graph in exact arithmetic: an interpreter of `torch.fx` graphs over numpy arrays of objects.

The executed graph itself is run on integers modulo a prime, on fractions or on polynomials: any numbers with addition
and multiplication in Python. It knows each operation of the lowering, with torch's meaning, and refuses all others by
name: nothing is ever skipped. A float in the graph with a rational meaning, such as 1/3, has that rational in
`node.meta["coefficient"]`; it is believed only if it rounds to that very float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx.node import map_arg

from polyattn.errors import NotPolynomialError, ProofError, SizeError
from polyattn.kernels import attention
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.lowering.pooling import window_extreme, window_extreme_backward
from polyattn.lowering.pullbacks import PULLBACKS, masked_softmax
from polyattn.lowering.shapes import choices, condition, expect_shape, identity, refined_mean, summable, widened
from polyattn.proving.evaluation import Arithmetic


def run_exactly(module: fx.GraphModule, tensors: Sequence[np.ndarray], arithmetic: Arithmetic) -> Any:
    """Return a lowered graph's result on exact tensors: an array, or a tuple of arrays and None.

    Args:
        module: from `polyattn.lower`, or a graph of the same operations.
        tensors: an object array for each argument, in their order; the inputs have a leading batch axis.
        arithmetic: the conversion of rational constants, and the treatment of every result (such as a remainder).

    Raises:
        ProofError: the graph has an operation that is not known here.
        NotPolynomialError: the graph applies a function.
        SizeError: a tensor's shape differs from the graph's.
        ValueError: shapes in the graph do not fit each other.
    """
    run = _Run(arithmetic)
    return interpreted(module, tensors, lambda node, args, kwargs: run.operation(node)(*args, **kwargs))


def interpreted(module: fx.GraphModule, tensors: Sequence[Any], apply: Callable[[fx.Node, Any, Any], Any]) -> Any:
    """Return a graph's result with its operations reinterpreted: `apply` gets each node with its arguments' values.

    Raises:
        ProofError: the graph does not end in an output.
    """
    values: dict[fx.Node, Any] = {}
    rest = iter(tensors)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(rest)
            continue
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda n: values[n])
        if node.op == "output":
            return args[0]
        values[node] = apply(node, args, kwargs)
    raise ProofError("the graph has no output")


def rational(node: fx.Node, value: float | int) -> Fraction:
    """Return the number meant by a constant among a node's arguments."""
    meant = node.meta.get("coefficient")
    # A stored fraction that does not round to the float might hide a wrong constant.
    if isinstance(meant, Fraction) and float(meant) == value:
        return meant
    if not isfinite(value):
        raise ProofError(f"the graph's operation '{node.name}' has the constant {value}, which is no number")
    # Every finite float is exactly a fraction.
    return Fraction(value)


def operation_name(node: fx.Node) -> str:
    """Return the bare name of a node's method or function."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


class _Run:
    def __init__(self, arithmetic: Arithmetic):
        self.arithmetic = arithmetic

    def operation(self, node: fx.Node) -> Callable[..., Any]:
        table = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, {})
        # Functions are looked up by identity, not by name: another function of the same name is
        # unknown.
        if node.target in table:
            handler = table[node.target]  # pyright: ignore[reportArgumentType]
            return lambda *args, **kwargs: handler(self, node, *args, **kwargs)
        if operation_name(node) in OPAQUE:
            raise NotPolynomialError(
                f"the graph applies '{operation_name(node)}': only numbers can be put into it, not exact arithmetic; "
                f'level="numeric" checks it'
            )
        raise ProofError(
            f"the graph's operation '{node.name}' ({node.op} of {operation_name(node)}) is not known to exact "
            f"arithmetic, so nothing can be said about this graph"
        )

    def settled(self, value: Any) -> np.ndarray:
        return _array(self.arithmetic.settle(_array(value)))

    def constant(self, node: fx.Node, value: float | int) -> Any:
        return self.arithmetic.number(rational(node, value))

    def scaled(self, node: fx.Node, array: np.ndarray, factor: float | int) -> np.ndarray:
        # A factor of one is exact in every arithmetic and needs no multiplication.
        return array if factor == 1 else self.settled(array * self.constant(node, factor))

    def matmul(self, node: fx.Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.settled(np.matmul(a, b))

    def baddbmm(
        self, node: fx.Node, c: np.ndarray, a: np.ndarray, b: np.ndarray, *, beta: float = 1, alpha: float = 1
    ) -> np.ndarray:
        # numpy's matmul would accept other shapes than torch's baddbmm.
        if a.ndim != 3 or b.ndim != 3:
            raise ValueError("baddbmm takes batches of matrices")
        product = self.scaled(node, self.settled(np.matmul(a, b)), alpha)
        # As in torch: with beta = 0 the first operand is ignored, whatever it holds.
        return product if beta == 0 else self.settled(self.scaled(node, c, beta) + product)

    def mul(self, node: fx.Node, a: np.ndarray, b: np.ndarray | float | int) -> np.ndarray:
        return self.scaled(node, a, b) if isinstance(b, float | int) else self.settled(a * b)

    def add(self, node: fx.Node, a: np.ndarray, b: np.ndarray, *, alpha: float = 1) -> np.ndarray:
        return self.settled(a + self.scaled(node, b, alpha))

    def sub(self, node: fx.Node, a: np.ndarray, b: np.ndarray, *, alpha: float = 1) -> np.ndarray:
        return self.settled(a - self.scaled(node, b, alpha))

    def neg(self, node: fx.Node, a: np.ndarray) -> np.ndarray:
        return self.settled(-a)

    def cast(self, node: fx.Node, a: np.ndarray, *like: np.ndarray) -> np.ndarray:
        """Return the array unchanged: a cast does not change exact numbers."""
        return a

    def refined_mean(self, node: fx.Node, mean: np.ndarray, deviations: np.ndarray, axes: Any) -> np.ndarray:
        return self.settled(mean + self.mean(node, deviations, axes))

    def sum(
        self, node: fx.Node, a: np.ndarray, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> np.ndarray:
        return self.settled(a.sum(axis=_axes(dim), keepdims=keepdim))

    def mean(
        self, node: fx.Node, a: np.ndarray, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> np.ndarray:
        axes = _axes(dim)
        count = a.size if axes is None else prod(a.shape[k] for k in axes)
        total = self.sum(node, a, dim, keepdim)
        # Multiplied by an inverse, since a remainder cannot be divided.
        return self.settled(total * self.arithmetic.number(Fraction(1, count)))

    def diagonal(self, node: fx.Node, a: np.ndarray, offset: int = 0, dim1: int = 0, dim2: int = 1) -> np.ndarray:
        return np.diagonal(a, offset, dim1, dim2)

    def permute(self, node: fx.Node, a: np.ndarray, *order: Any) -> np.ndarray:
        return a.transpose(_flat(order))

    def movedim(self, node: fx.Node, a: np.ndarray, source: int, destination: int) -> np.ndarray:
        return np.moveaxis(a, source, destination)

    def clone(self, node: fx.Node, a: np.ndarray, *, memory_format: torch.memory_format | None = None) -> np.ndarray:
        return a

    def flatten(self, node: fx.Node, a: np.ndarray, start: int = 0, end: int = -1) -> np.ndarray:
        start, end = start % max(a.ndim, 1), end % max(a.ndim, 1)
        return a.reshape(*a.shape[:start], prod(a.shape[start : end + 1]), *a.shape[end + 1 :])

    def unflatten(self, node: fx.Node, a: np.ndarray, axis: int, lengths: Sequence[int]) -> np.ndarray:
        axis, lengths = axis % a.ndim, list(lengths)
        if -1 in lengths:
            # The product with -1 in it is minus the product of the others.
            lengths[lengths.index(-1)] = a.shape[axis] // -prod(lengths)
        if prod(lengths) != a.shape[axis]:
            raise ValueError(f"an axis of length {a.shape[axis]} does not unflatten into {lengths}")
        return a.reshape(*a.shape[:axis], *lengths, *a.shape[axis + 1 :])

    def unsqueeze(self, node: fx.Node, a: np.ndarray, axis: int) -> np.ndarray:
        return np.expand_dims(a, axis)

    def squeeze(self, node: fx.Node, a: np.ndarray, axis: int) -> np.ndarray:
        # torch leaves an axis longer than one as it is; numpy would raise.
        return np.squeeze(a, axis) if a.shape[axis] == 1 else a

    def expand(self, node: fx.Node, a: np.ndarray, *lengths: Any) -> np.ndarray:
        wanted = _flat(lengths)
        have = (1,) * (len(wanted) - a.ndim) + a.shape
        # -1 keeps a length, as in torch.
        return np.broadcast_to(a, [h if w == -1 else w for w, h in zip(wanted, have, strict=True)])

    def size(self, node: fx.Node, a: np.ndarray, axis: int) -> int:
        return a.shape[axis]

    def identity(self, node: fx.Node, like: np.ndarray, n: int) -> np.ndarray:
        return _array([[self.arithmetic.number(Fraction(int(i == j))) for j in range(n)] for i in range(n)])

    def condition(
        self,
        node: fx.Node,
        like: np.ndarray,
        relation: str,
        slots: Sequence[int],
        lengths: Sequence[int],
        number: int,
        sizes: Sequence[Sequence[int]] = (),
    ) -> np.ndarray:
        found = np.empty(tuple(lengths), dtype=object)
        width = len(lengths) // max(1, len(slots))
        start = number + sum(prod(factors) for factors in sizes)
        for place in np.ndindex(*lengths):
            total = start
            for k, factor in enumerate(slots):
                position = 0
                for axis in range(k * width, (k + 1) * width):
                    position = position * lengths[axis] + place[axis]
                total += factor * position
            holds = {"<=": total <= 0, "==": total == 0, "!=": total != 0}[relation]
            found[place] = self.arithmetic.number(Fraction(int(holds)))
        return found

    def neighbourhood(
        self,
        node: fx.Node,
        first: np.ndarray,
        second: np.ndarray | None,
        letters: str,
        relations: Sequence[tuple[str, Sequence[tuple[str, int]], int]],
        sizes: Sequence[tuple[str, int]],
    ) -> np.ndarray:
        arrays = [_array(a) for a in (first, second) if a is not None]
        found = over_places(arrays, letters, relations, sizes, self.arithmetic.number(Fraction(0)))
        return self.settled(found)

    def new_ones(self, node: fx.Node, like: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return np.full(shape, self.arithmetic.number(Fraction(1)), dtype=object)

    def new_zeros(self, node: fx.Node, like: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return np.full(shape, self.arithmetic.number(Fraction(0)), dtype=object)

    def expect_shape(
        self, node: fx.Node, a: np.ndarray, name: str, shape: tuple[int, ...], batched: bool
    ) -> np.ndarray:
        have = a.shape[1:] if batched else a.shape
        if have != tuple(shape):
            raise SizeError(f"'{name}' has shape {a.shape}, but the graph was planned for {tuple(shape)}")
        return a


def over_places(
    arrays: Sequence[np.ndarray],
    letters: str,
    relations: Sequence[tuple[str, Sequence[tuple[str, int]], int]],
    sizes: Sequence[tuple[str, int]],
    zero: Any,
) -> np.ndarray:
    """Return a product over neighbourhoods by its definition: a sum over all places of the relations' letters.

    Args:
        arrays: one or two operands.
        letters: of the operands and the result, as in an einsum.
        relations: (p, ((i, s), (u, d)), n), the index p is at s*i + d*u + n; places outside of its range add nothing.
        sizes: (letter, length) of the relations' letters.
        zero: the number 0.
    """
    operands, _, output = letters.partition("->")
    names = operands.split(",")
    lengths = {i: n for a, own in zip(arrays, names, strict=True) for i, n in zip(own, a.shape, strict=True)}
    lengths |= dict(sizes)
    run = list(dict.fromkeys(i for _, terms, _ in relations for i, _ in terms))
    rest = [i for i in dict.fromkeys("".join(names)) if i not in run and all(i != p for p, _, _ in relations)]
    found = np.full([lengths[i] for i in output], zero, dtype=object)
    summed = tuple(k for k, i in enumerate(rest) if i not in output)
    kept = [i for i in rest if i in output]
    order = [kept.index(i) for i in output if i in kept]
    for values in np.ndindex(*(lengths[i] for i in run)):
        at = dict(zip(run, values, strict=True))
        for p, terms, start in relations:
            at[p] = start + sum(factor * at[i] for i, factor in terms)
        if not all(0 <= at[p] < lengths[p] for p, _, _ in relations):
            continue
        product: Any = 1
        for array, own in zip(arrays, names, strict=True):
            part, left = _array(array[tuple(at.get(i, slice(None)) for i in own)]), [i for i in own if i not in at]
            while (twice := next((i for i in left if left.count(i) > 1), None)) is not None:
                one, other = left.index(twice), len(left) - 1 - left[::-1].index(twice)
                part = np.diagonal(part, 0, one, other)
                left = [i for k, i in enumerate(left) if k not in (one, other)] + [twice]
            part = part.transpose([left.index(i) for i in rest if i in left])
            product = product * part.reshape([lengths[i] if i in left else 1 for i in rest])
        value = np.broadcast_to(_array(product), [lengths[i] for i in rest])
        value = _array(value.sum(axis=summed) if summed else value).transpose(order)
        place = tuple(at.get(i, slice(None)) for i in output)
        found[place] = found[place] + value
    return found


FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    expect_shape: _Run.expect_shape,
    identity: _Run.identity,
    condition: _Run.condition,
    neighbourhood: _Run.neighbourhood,
    refined_mean: _Run.refined_mean,
    summable: _Run.cast,
    widened: _Run.cast,
    torch.matmul: _Run.matmul,
    torch.baddbmm: _Run.baddbmm,
    torch.mul: _Run.mul,
    torch.add: _Run.add,
    torch.sub: _Run.sub,
    torch.neg: _Run.neg,
    torch.diagonal: _Run.diagonal,
}
METHODS: Mapping[Any, Callable[..., Any]] = {
    "double": _Run.cast,
    "type_as": _Run.cast,
    "sum": _Run.sum,
    "mean": _Run.mean,
    "permute": _Run.permute,
    "movedim": _Run.movedim,
    "clone": _Run.clone,
    "flatten": _Run.flatten,
    "unflatten": _Run.unflatten,
    "unsqueeze": _Run.unsqueeze,
    "squeeze": _Run.squeeze,
    "expand": _Run.expand,
    "size": _Run.size,
    "new_ones": _Run.new_ones,
    "new_zeros": _Run.new_zeros,
}
OPAQUE = frozenset({"softmax", "relu", "sigmoid", "abs", "div", "clamp_min", "amax"})
OPAQUE |= {
    window_extreme.__name__,
    window_extreme_backward.__name__,
    attention.__name__,
    choices.__name__,
    masked_softmax.__name__,
    *(f.__name__ for f in PULLBACKS.values()),
}
"""The operations that the language's functions, and their vector-Jacobian products, are made of."""


def _array(value: Any) -> np.ndarray:
    """Return an array; numpy gives bare numbers for arrays without axes."""
    return np.asarray(value, dtype=object)


def _axes(dim: Any) -> tuple[int, ...] | None:
    """Return torch's `dim` for numpy: None and an empty tuple are all axes."""
    if dim is None or dim == () or dim == []:
        return None
    return (dim,) if isinstance(dim, int) else tuple(dim)


def _flat(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """Return `permute(0, 1)` and `permute((0, 1))` as the same tuple."""
    return tuple(numbers[0]) if len(numbers) == 1 and not isinstance(numbers[0], int) else numbers
