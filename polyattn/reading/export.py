"""Code to a graph of torch's operations with symbolic sizes, by `torch.export`, or by `make_fx` where that cannot.

The graph has no in-place operations. The module is copied first, so that it keeps no fake tensors in its caches.
"""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from polyattn.errors import ReadingError
from polyattn.reading.operations import OPERATIONS


@dataclass(frozen=True)
class Exported:
    """The graph of some code.

    Attributes:
        graph: operations of `torch.ops.aten` on symbolic sizes, without mutation.
        inputs: the placeholders of the arguments' tensors, by name, with the example's tensors.
        stored: the placeholders of parameters, buffers and constants: the qualified name ("" for a constant), whether
            it is a parameter, and the tensor.
        outputs: the nodes of the results, or constants.
        way: "torch.export" or "make_fx".
        call: runs the code on the tensors of `inputs`, given in their order.
    """

    graph: Graph
    inputs: dict[str, tuple[Node, torch.Tensor]]
    stored: dict[Node, tuple[str, bool, torch.Tensor]]
    outputs: tuple[Any, ...]
    way: str
    call: Callable[..., Any] = field(repr=False)


class Wrapped(nn.Module):
    """A function as a module, for `torch.export`."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        if isinstance(function, FunctionType):
            # Torch notes the lines of functions called `forward` alone: a copy has that name.
            code = function.__code__.replace(co_name="forward")
            renamed = FunctionType(
                code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
            )
            renamed.__kwdefaults__ = function.__kwdefaults__
            renamed.__wrapped__ = function  # type: ignore[attr-defined]
            function = renamed
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def export(
    subject: Any, args: Sequence[Any], kwargs: Mapping[str, Any], static: Sequence[Sequence[int]] = ()
) -> Exported:
    """Return the graph of a module or function at an example.

    Args:
        static: for each tensor of `args`, the axes whose lengths stay numbers.

    Raises:
        ReadingError: the code cannot be traced, or its results depend on more than its tensors.
    """
    module = _copied(subject)
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    _check(module, tensors)
    attempts = (torch.float64, None)
    found: Exception | None = None
    for dtype in attempts:
        try:
            return _export(_as_dtype(module, dtype), *_converted(args, kwargs, dtype), static)
        except ReadingError:
            raise
        except Exception as error:
            found = found or error
    for dtype in attempts:
        try:
            return _make_fx(_as_dtype(module, dtype), *_converted(args, kwargs, dtype))
        except Exception:
            continue
    assert found is not None
    raise _named(found) from found


def _copied(subject: Any) -> nn.Module:
    if isinstance(subject, nn.Module):
        try:
            return copy.deepcopy(subject)
        except Exception as error:
            raise ReadingError(
                f"`module`: {type(subject).__name__} cannot be copied ({error}); give a function of tensors"
            ) from error
    owner = getattr(subject, "__self__", None)
    if isinstance(owner, nn.Module) and getattr(subject, "__name__", "") == "forward":
        return _copied(owner)
    if not callable(subject):
        raise ReadingError(f"`module` is a {type(subject).__name__}; expected a module or a function of tensors")
    return Wrapped(subject)


def _as_dtype(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    return module if dtype is None else copy.deepcopy(module).to(dtype)


def _converted(
    args: Sequence[Any], kwargs: Mapping[str, Any], dtype: torch.dtype | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def convert(a: Any) -> Any:
        if not isinstance(a, torch.Tensor):
            return a
        a = a.detach()
        return a.to(dtype) if dtype is not None and a.is_floating_point() else a.clone()

    return tuple(map(convert, args)), {k: convert(v) for k, v in kwargs.items()}


def _check(module: nn.Module, tensors: Sequence[torch.Tensor]) -> None:
    if not tensors:
        raise ReadingError(
            "`args` has no tensor: give an example of the module's inputs, such as (torch.randn(2, 5, 64),)"
        )
    named = [*((f"parameter {n}", p) for n, p in module.named_parameters()), *(("`args`", t) for t in tensors)]
    for name, tensor in named:
        if tensor.is_complex():
            raise ReadingError(
                f"{name} is complex; the language has real tensors only: read the real and imaginary parts"
            )
        if tensor.is_quantized:
            raise ReadingError(f"{name} is quantised; dequantise it first")
    for t in tensors:
        if not t.numel():
            raise ReadingError(f"`args` has an empty tensor, of shape {tuple(t.shape)}; give sizes of one or more")


def _export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], static: Sequence[Sequence[int]] = ()
) -> Exported:
    auto, fixed = torch.export.Dim.AUTO, torch.export.Dim.STATIC
    left = iter(static)

    def dims(a: Any) -> Any:
        if not isinstance(a, torch.Tensor):
            return None
        numbers = next(left, ())
        return tuple(fixed if k in numbers else auto for k in range(a.dim()))

    shapes: Any = _signature_shapes(module, args, kwargs, dims)
    # The search for an einsum's order would turn symbolic sizes into the example's.
    with warnings.catch_warnings(), torch.backends.opt_einsum.flags(enabled=False):
        warnings.simplefilter("ignore")
        program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        changing = next((n for n in program.graph.nodes if getattr(_schema(n), "is_mutable", False)), None)
        if not _plain(program.graph):
            program = program.run_decompositions(_decompositions())
    signature = program.graph_signature
    _check_mutation(program, module, line_of(changing))
    nodes = {n.name: n for n in program.graph.nodes}
    inputs: dict[str, tuple[Node, torch.Tensor]] = {}
    stored: dict[Node, tuple[str, bool, torch.Tensor]] = {}
    users = iter(pytree.tree_leaves((args, kwargs)))
    for spec in signature.input_specs:
        name = getattr(spec.arg, "name", "")
        kind = spec.kind.name
        if kind == "USER_INPUT":
            value = next(users)
            if isinstance(value, torch.Tensor):
                inputs[name] = (nodes[name], value)
        elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            target = spec.target or ""
            held: Any = program.constants.get(target) if kind == "CONSTANT_TENSOR" else program.state_dict.get(target)
            if held is None:
                held = program.constants[target]
            origin = "" if kind == "CONSTANT_TENSOR" else target
            stored[nodes[name]] = (origin, kind == "PARAMETER", held.detach())
    outputs = tuple(
        nodes.get(getattr(s.arg, "name", ""), getattr(s.arg, "value", None)) for s in signature.output_specs
    )

    def call(*tensors: torch.Tensor) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        left = iter(tensors)
        new = [next(left) if isinstance(v, torch.Tensor) else v for v in leaves]
        a, k = pytree.tree_unflatten(new, spec)
        with torch.no_grad():
            return pytree.tree_leaves(module(*a, **k))

    return Exported(program.graph, inputs, stored, outputs, "torch.export", call)


def _signature_shapes(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: Callable[[Any], Any]
) -> Any:
    tree = pytree.tree_map
    if isinstance(module, Wrapped):
        # The function's arguments are those of `forward(*args, **kwargs)`.
        return {"args": tree(dims, args), **({"kwargs": tree(dims, kwargs)} if kwargs else {})}
    if not kwargs:
        return tree(dims, args)
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return tree(dims, dict(bound.arguments))


def _plain(graph: Graph) -> bool:
    """Return whether all operations are in the table and change nothing in place; then nothing is to decompose."""
    for node in graph.nodes:
        target: Any = node.target
        if node.op == "get_attr":
            return False
        if node.op == "call_function" and isinstance(target, torch._ops.OpOverload):
            name = target._schema.name.partition("::")[2]
            if target._schema.is_mutable or (name not in OPERATIONS and not name.startswith(("sym_", "_assert"))):
                return False
        elif node.op == "call_function" and getattr(target, "__module__", "") not in ("_operator", "math"):
            return False
    return True


def _decompositions() -> dict[Any, Any]:
    """Return torch's decompositions of the operations that the table lacks."""
    table = dict(torch.export.default_decompositions())
    return {op: f for op, f in table.items() if cast(Any, op)._schema.name.partition("::")[2] not in OPERATIONS}


def _schema(node: Node) -> Any:
    return getattr(node.target, "_schema", None)


def _check_mutation(program: Any, module: nn.Module, line: str) -> None:
    at = f" ({line})" if line else ""
    signature = program.graph_signature
    mutated = dict(getattr(signature, "user_inputs_to_mutate", {}) or {})
    if mutated:
        name = next(iter(mutated.values()))
        if isinstance(module, Wrapped) and name.startswith("args_"):
            name = [*inspect.signature(module.function).parameters, name][int(name[5:])]
        raise ReadingError(f"the code changes its input `{name}` in place{at}: clone it first")
    buffers = dict(signature.buffers_to_mutate)
    if buffers:
        name = next(iter(buffers.values()))
        raise ReadingError(
            f"the code changes its buffer `{name}`{at}, as batch norm does in training: call .eval() first"
        )


def _make_fx(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exported:
    from torch.fx.experimental.proxy_tensor import make_fx

    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [v for v in leaves if isinstance(v, torch.Tensor)]
    names = list(held)

    def run(*flat: torch.Tensor) -> Any:
        left = iter(flat[len(names) :])
        new = [next(left) if isinstance(v, torch.Tensor) else v for v in leaves]
        a, k = pytree.tree_unflatten(new, spec)
        state = dict(zip(names, flat, strict=False))
        return pytree.tree_leaves(torch.func.functional_call(module, state, a, k))

    with warnings.catch_warnings(), torch.no_grad(), torch.backends.opt_einsum.flags(enabled=False):
        warnings.simplefilter("ignore")
        functional = torch.func.functionalize(run, remove="mutations_and_views")
        traced = make_fx(functional, tracing_mode="symbolic", decomposition_table=_decompositions())(
            *(t.detach() for t in held.values()), *tensors
        )
    places = [n for n in traced.graph.nodes if n.op == "placeholder"]
    stored = {
        n: (name, isinstance(held[name], nn.Parameter), held[name].detach())
        for n, name in zip(places, names, strict=False)
    }
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            stored[node] = ("", False, getattr(traced, str(node.target)))
    rest = places[len(names) :]
    inputs = {f"x{k}" if k else "x": (n, t) for k, (n, t) in enumerate(zip(rest, tensors, strict=True))}
    (last,) = (n for n in traced.graph.nodes if n.op == "output")
    outputs = tuple(last.args[0]) if isinstance(last.args[0], list | tuple) else (last.args[0],)

    def call(*given: torch.Tensor) -> Any:
        with torch.no_grad():
            return run(*(held[n] for n in names), *given)

    return Exported(traced.graph, inputs, stored, outputs, "make_fx", call)


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_OURS = ("/torch/", "torch/", "/polyattn/reading/", "polyattn/reading/", "/einops/", "<eval_with_key>", "<frozen")


def line_of(node: Node | None, whole: bool = False) -> str:
    """Return the line of the user's code that a node comes from, such as "block.py:12"; "" if it is not known."""
    trace = (node.meta.get("stack_trace") or "") if node is not None else ""
    frames = [(f, n) for f, n in _FRAME.findall(trace)]
    own = [(f, n) for f, n in frames if not any(part in f if part[0] == "/" else f.startswith(part) for part in _OURS)]
    if not own:
        return ""
    file, number = own[-1]
    return f"{file if whole else file.rpartition('/')[2]}:{number}"


def _named(error: Exception) -> ReadingError:
    """Return a named error for a failure of torch's tracing."""
    text = f"{type(error).__name__}: {error}"
    frames = [(f, n) for f, n in _FRAME.findall(text) if "/torch/" not in f and not f.startswith("torch/")]
    import traceback

    stack = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not any(p in f.filename for p in ("/torch/", "/polyattn/reading/", "/einops/", "<"))
    ]
    line = ""
    if stack:
        line = f" ({stack[-1].filename.rpartition('/')[2]}:{stack[-1].lineno})"
    elif frames:
        line = f" ({frames[-1][0].rpartition('/')[2]}:{frames[-1][1]})"
    if "DataDependent" in text or "data-dependent" in text or "GuardOnDataDependent" in text:
        return ReadingError(
            f"the code's control flow depends on the values of tensors{line}: read a branch of it as a function"
        )
    first = str(error).strip().split("\n")[0][:300]
    return ReadingError(f"torch cannot trace the code{line}: {type(error).__name__}: {first}")
