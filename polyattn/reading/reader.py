"""Follows a graph of operations and makes a definition of each result, or cuts it off."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.fx import Node

from polyattn.errors import ReadingError
from polyattn.reading.builder import number
from polyattn.reading.export import Exported, line_of
from polyattn.reading.numbers import Measured, exact
from polyattn.reading.operations import OPERATIONS, Called
from polyattn.reading.operations.masks import is_places, of_data
from polyattn.reading.sizes import Size, UnsayableError, Values
from polyattn.reading.values import Index, Tensor, Value

# The lengths of the symbolic sizes beside the example's: multiples of it, so that what divides them still does.
_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83)
ASSIGNMENTS = 4
MAY_BE_INFINITE = {
    *("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "expand", "permute"),
    *("transpose", "clone", "contiguous", "alias", "detach", "lift_fresh_copy", "_to_copy"),
    *("to", "type_as", "dropout", "tril", "triu", "where", "add"),
    *("masked_fill", "softmax", "_softmax", "logsumexp", "amax", "max", "scaled_dot_product_attention"),
}
"""Operations whose arguments may be minus infinity at the places that a mask leaves out."""
MAY_BE_PLACES = {
    *("view", "reshape", "squeeze", "unsqueeze", "expand", "permute", "transpose", "slice", "alias", "clone"),
    *("ge", "le", "gt", "lt"),
}
"""Operations whose arguments may be the numbers from 0 on."""


@dataclass(frozen=True)
class Cut:
    """A result that became an input: the operation, the line of code, the input's name and the reason."""

    operation: str
    place: str
    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """Result of the reader.

    Attributes:
        outputs: the value of each output of the code.
        inputs: the tensor of each argument.
        cuts: the tensor, the node and the entry of its result, the operation, line and reason of each cut.
        sizes: the symbolic sizes of the inputs.
    """

    outputs: tuple[Value | None, ...]
    inputs: dict[str, tuple[Tensor, Value]]
    cuts: tuple[tuple[Tensor, Node, int | None, str, str, str], ...]
    sizes: tuple[Size, ...]


class Reader:
    """Reads one graph."""

    def __init__(self, exported: Exported, wide: bool = True):
        self.exported = exported
        self.wide = wide
        self.values: dict[Node, Any] = {}
        self.known: dict[Node, Any] = {}
        """Constants and buffers, and what is computed from them alone."""
        self.cuts: list[tuple[Tensor, Node, int | None, str, str, str]] = []
        self.assigned = self._assign()
        self.symbolic: dict[Values, Size] = {}

    def _assign(self) -> list[dict[sympy.Symbol, int]]:
        hints: dict[sympy.Symbol, int] = {}
        open_: list[tuple[Any, int]] = []
        for node, tensor in self.exported.inputs.values():
            for dim, length in zip(node.meta["val"].shape, tensor.shape, strict=True):
                if isinstance(dim, torch.SymInt):
                    open_.append((dim.node.expr, length))
        # An axis may be a product of two symbols, which other axes have by themselves.
        for expression, length in sorted(open_, key=lambda pair: len(pair[0].free_symbols)):
            left = expression.xreplace({s: sympy.Integer(n) for s, n in hints.items()})
            if len(left.free_symbols) == 1:
                (symbol,) = left.free_symbols
                found = sympy.solve(left - length, symbol) if left != symbol else [length]
                hints[symbol] = int(found[0])
        found = [hints]
        for k in range(1, ASSIGNMENTS):
            primes = _PRIMES[k - 1 :: ASSIGNMENTS - 1]
            found.append({s: n * primes[j % len(primes)] for j, (s, n) in enumerate(hints.items())})
        return found

    def numbers(self, value: Any) -> tuple[float, ...]:
        """Return a number of the graph at each assignment of lengths."""
        if isinstance(value, torch.SymInt | torch.SymFloat):
            found = []
            for assigned in self.assigned:
                at: Any = value.node.expr.xreplace({s: sympy.Integer(n) for s, n in assigned.items()})
                at = at.doit() if hasattr(at, "doit") else at
                found.append(float(at))
            return tuple(found)
        return (value,) * ASSIGNMENTS

    def lengths(self, value: Any) -> Values:
        found = self.numbers(value)
        if any(v != int(v) for v in found):
            raise UnsayableError("a length that is not a whole number")
        return tuple(int(v) for v in found)

    def shape(self, value: torch.Tensor) -> tuple[Values, ...]:
        return tuple(self.lengths(n) for n in value.shape)

    def size(self, values: Values) -> Size:
        """Return the size of an axis of a tensor; symbolic ones with the same values are one."""
        if len(set(values)) == 1:
            return Size(values)
        return self.symbolic.setdefault(values, Size(values))

    def placed(self, tensor: Tensor, shape: tuple[Values, ...]) -> Value:
        """Return the value of a whole tensor; axes of length 1 are without a slot."""
        axes = tuple(() if set(n) == {1} else (Index(self.size(n)),) for n in shape)
        indices = tuple(i for axis in axes for i in axis)
        tensor.sizes = tuple(i.size for i in indices)
        return Value(axes, tensor, tuple((i,) for i in indices))

    def run(self) -> Found:
        inputs: dict[str, tuple[Tensor, Value]] = {}
        for name, (node, _) in self.exported.inputs.items():
            self._check_dtype(node)
            tensor = Tensor("input", name, (), node=node.name)
            value = self.placed(tensor, self.shape(node.meta["val"]))
            inputs[name] = (tensor, value)
            self.values[node] = value
        for node, (origin, trained, held) in self.exported.stored.items():
            mask = of_data(held, ASSIGNMENTS) if self.wide and not trained else None
            self.values[node] = self.stored(origin, held) if mask is None else mask
            if not trained:
                self.known[node] = held
        for node in self.exported.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self.visit(node)
        for node in self.exported.outputs:
            held = self.values.get(node) if isinstance(node, Node) else None
            if (isinstance(held, Value) and held.where) or is_places(held):
                self.values[node] = self.cut(node, node.name, "entries that are minus infinity, or places")
        outputs = tuple(self.values.get(o) if isinstance(o, Node) else None for o in self.exported.outputs)
        return Found(outputs, inputs, tuple(self.cuts), tuple(self.symbolic.values()))

    def stored(self, origin: str, held: torch.Tensor, hint: str = "constant") -> Value:
        """Return the value of a parameter, a buffer or a constant."""
        shape = tuple((n,) * ASSIGNMENTS for n in held.shape)
        if not origin and held.numel() and bool((held == held.reshape(-1)[0]).all()):
            try:
                everywhere = number(exact(held.reshape(-1)[0].item()))
            except UnsayableError:
                pass
            else:
                axes = tuple(() if n == 1 else (Index(Size((n,) * ASSIGNMENTS)),) for n in held.shape)
                return Value(axes, everywhere.tensor, ())
        data = held.reshape([n for n in held.shape if n != 1])
        return self.placed(Tensor("parameter", origin or hint, (), data=data, origin=origin), shape)

    def visit(self, node: Node) -> Any:
        if node.target is operator.getitem:
            source, entry = node.args
            whole = self.values[source]  # type: ignore[index]
            if isinstance(whole, list | tuple) and isinstance(entry, int) and whole[entry] is not None:
                return whole[entry]
            return self.cut(node, "getitem", "a result that has no meaning")
        meta = node.meta.get("val")
        if isinstance(meta, torch.SymInt | torch.SymFloat | int | float | torch.SymBool | bool):
            return None if isinstance(meta, torch.SymBool | bool) else self._measured(meta)
        if not isinstance(node.target, torch._ops.OpOverload):
            return None
        if meta is None:
            return None
        self._check_dtype(node)
        name = node.target._schema.name.partition("::")[2]
        self._check_random(node, name)
        try:
            return self.read(node, name)
        except UnsayableError as error:
            return self.cut(node, name, str(error))
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Arguments in a form that the table does not foresee, as of another release of torch.
            return self.cut(node, name, f"arguments that are not understood ({type(error).__name__})")

    def _measured(self, meta: Any) -> Any:
        if isinstance(meta, int | float):
            return meta
        values = self.numbers(meta)
        return Measured(values, tuple(self.symbolic.values()))

    def read(self, node: Node, name: str) -> Any:
        if name not in OPERATIONS:
            raise UnsayableError(f"no meaning for {name}")
        metas = node.meta["val"]
        metas = [metas] if isinstance(metas, torch.Tensor) else [m for m in metas if isinstance(m, torch.Tensor)]
        call = Called(
            name,
            tuple(self.shape(m) for m in metas),
            tuple(_kind(m.dtype) for m in metas),
            hint_of(node),
            line_of(node),
            _inputs(node),
            self.wide,
        )
        self._check_arguments(node, name)
        args = torch.fx.map_arg(node.args, self.value)
        kwargs = torch.fx.map_arg(node.kwargs, self.value)
        found = OPERATIONS[name](call, *args, **dict(kwargs))
        self._check_shape(found, call)
        return found

    def value(self, node: Node) -> Any:
        found = self.values.get(node)
        if found is None:
            raise UnsayableError("an argument without a meaning")
        return found

    def _check_arguments(self, node: Node, name: str) -> None:
        for given in node.all_input_nodes:
            found = self.values.get(given)
            if isinstance(found, Value) and found.where and name not in MAY_BE_INFINITE:
                raise UnsayableError("entries that are minus infinity")
            if is_places(found) and name not in MAY_BE_PLACES:
                raise UnsayableError("places that are not compared")

    def _check_shape(self, found: Any, call: Called) -> None:
        for value, shape in zip(found if isinstance(found, list) else [found], call.shapes, strict=True):
            if value is not None and value.shape(ASSIGNMENTS) != shape:
                raise UnsayableError("a shape that the equation does not have")

    def _check_dtype(self, node: Node) -> None:
        metas = node.meta.get("val")
        for meta in metas if isinstance(metas, list | tuple) else [metas]:
            if isinstance(meta, torch.Tensor) and (meta.is_complex() or meta.is_quantized):
                what = "complex" if meta.is_complex() else "quantised"
                at = line_of(node)
                raise ReadingError(
                    f"the code computes a {what} tensor{f' ({at})' if at else ''}; the language has real tensors only"
                )

    def _check_random(self, node: Node, name: str) -> None:
        target: Any = node.target
        random = torch.Tag.nondeterministic_seeded in target.tags and "dropout" not in name and "attention" not in name
        bound = target._schema.arguments
        given = {a.name: v for a, v in zip(bound, node.args, strict=False)} | dict(node.kwargs)
        training = given.get("train", given.get("training")) is True
        if "dropout" in name and training and given.get("p", 0.5) not in (0, 0.0):
            random = True
        if "attention" in name and given.get("dropout_p", 0.0) not in (0, 0.0):
            random = True
        if name in ("batch_norm", "instance_norm") and training and name == "batch_norm":
            raise ReadingError(
                f"batch norm in training mode ({line_of(node)}) uses the batch's statistics: call .eval() first"
            )
        if random:
            raise ReadingError(
                f"`{name}` is random ({line_of(node)}): call .eval() first, or pass its result as an argument"
            )

    def cut(self, node: Node, name: str, reason: str) -> Any:
        folded = self.folded(node)
        if folded is not None:
            self.known[node] = folded
            return self.stored("", folded) if isinstance(folded, torch.Tensor) else [self.stored("", f) for f in folded]
        metas = node.meta["val"]
        place = line_of(node)

        def one(meta: Any, entry: int | None) -> Value | None:
            if not isinstance(meta, torch.Tensor):
                return None
            tensor = Tensor("input", name.strip("_"), (), place=place, node=node.name)
            value = self.placed(tensor, self.shape(meta))
            self.cuts.append((tensor, node, entry, name, place, reason))
            return value

        if isinstance(metas, torch.Tensor):
            return one(metas, None)
        return [one(m, k) for k, m in enumerate(metas)]

    def folded(self, node: Node) -> Any:
        """Return the result of an operation on constants and buffers alone, or None."""
        metas = node.meta.get("val")
        for meta in metas if isinstance(metas, list | tuple) else [metas]:
            if not isinstance(meta, torch.Tensor) or any(not isinstance(n, int) for n in meta.shape):
                return None
        try:
            return self._computed(node)
        except (UnsayableError, RuntimeError, TypeError):
            return None

    def _computed(self, node: Node) -> Any:
        if node in self.known:
            return self.known[node]
        if node.op != "call_function":
            raise UnsayableError("an input")
        meta = node.meta.get("val")
        if isinstance(meta, int | float | bool):
            return meta
        if isinstance(meta, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise UnsayableError("a symbolic number")
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        args = torch.fx.map_arg(node.args, self._computed)
        kwargs = torch.fx.map_arg(node.kwargs, self._computed)
        self.known[node] = target(*args, **dict(kwargs))
        return self.known[node]


def _kind(dtype: torch.dtype) -> str:
    return "float" if dtype.is_floating_point else "bool" if dtype == torch.bool else "int"


def _inputs(node: Node) -> tuple[str, ...]:
    found: list[str] = []

    def note(n: Node) -> Node:
        meta = n.meta.get("val")
        if isinstance(meta, torch.Tensor):
            found.append(_kind(meta.dtype))
        return n

    torch.fx.map_arg((node.args, node.kwargs), note)
    return tuple(found)


def hint_of(node: Node) -> str:
    """Return the name of the module of torch that makes this result, or ""."""
    stack: Mapping[str, Any] = node.meta.get("nn_module_stack") or {}
    for path, kind in reversed(list(stack.values())):
        if not path or "torch.nn.modules" not in str(kind):
            continue
        names = [n for n in path.split(".") if not n.isdigit()]
        return names[-1] if names else ""
    return ""
