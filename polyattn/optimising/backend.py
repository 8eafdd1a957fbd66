"""`torch.compile(model, backend="polyattn")`: regions of Dynamo's graphs on their plans, the rest by Inductor.

Regions are decided as by `optimise`. Where lengths are symbolic, a region's plan is kept for all lengths at which it
costs less than the code as it was: the lengths at which that ends become guards, so that torch compiles again beyond a
crossover and not for each length.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch._guards import tracing

from polyattn.errors import OptimisingError, ReadingError
from polyattn.lowering import calibrated, kind
from polyattn.optimising.deciding import CutError, Decision, LeftError, decided
from polyattn.optimising.models import as_code, drawn
from polyattn.optimising.planned import Code
from polyattn.optimising.pricing import price
from polyattn.optimising.program import Program
from polyattn.optimising.regions import Region, as_module, is_large, may_win, regions
from polyattn.optimising.tracing import Notes, fixed_axes, noted

log = logging.getLogger("polyattn")
FARTHEST = 64
"""The factor around a length within which the end of a plan's advantage is sought."""


def polyattn(
    graph: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Return compiled code of a graph of Dynamo, its regions on plans where these are proved equal and cost less.

    Args:
        graph, inputs: as Dynamo gives them.
        mode: not used, as by Inductor's default mode.
        options: `inner`: the backend that compiles the graph afterwards, by name or itself; "inductor" by default, and
            "eager" where no compiler for C++ is found.

    Raises:
        OptimisingError: an option is unknown.
    """
    given = dict(options or {})
    inner = given.pop("inner", None)
    if given:
        raise OptimisingError(f"`options` has {next(iter(given))!r}; the backend polyattn takes 'inner'")
    try:
        # What is traced here leaves no guards in the graph at hand.
        with tracing(None):
            replaced = _Graph(graph).planned()
    except Exception as error:  # whatever fails here, the graph is compiled as it is
        log.warning("regions are left as they are: %s: %s", type(error).__name__, str(error).partition("\n")[0])
        replaced = graph
    return _compiled(replaced, inputs, inner)


def _compiled(
    graph: fx.GraphModule, inputs: Sequence[Any], inner: str | Callable[..., Any] | None
) -> Callable[..., Any]:
    if inner is None:
        inner = "inductor" if has_compiler() else "eager"
        if inner == "eager":
            warnings.warn("no C++ compiler is found: what polyattn leaves runs eagerly", stacklevel=2)
    if callable(inner):
        return inner(graph, list(inputs))
    if inner == "eager":
        return graph.forward
    if inner == "inductor":
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, list(inputs))  # pyright: ignore[reportReturnType]
    from torch._dynamo.backends.registry import lookup_backend

    return lookup_backend(inner)(graph, list(inputs))  # pyright: ignore[reportReturnType, reportCallIssue]


def has_compiler() -> bool:
    """Return whether Inductor finds a compiler for C++."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return shutil.which(get_cpp_compiler()) is not None
    except Exception:  # torch raises errors of its own, by release
        return False


class _Graph:
    """A graph of Dynamo and the regions in it."""

    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.places = [n for n in graph.graph.nodes if n.op == "placeholder"]
        metas = [n.meta.get("example_value") for n in self.places]
        self.metas = dict(zip(self.places, metas, strict=True))
        self.given = [_concrete(m) for m in metas]
        self.weights = {n for n, m in self.metas.items() if isinstance(m, nn.Parameter)}
        wanted = torch.is_grad_enabled() and any(isinstance(m, Tensor) and m.requires_grad for m in metas)
        self.objective = "training" if wanted else "forward"

    def planned(self) -> fx.GraphModule:
        """Return the graph with its regions on plans; the same graph if none is replaced."""
        tensors = [t for t in self.given if isinstance(t, Tensor)]
        if not tensors or any(n.op in ("call_module", "get_attr") for n in self.graph.graph.nodes):
            return self.graph
        device = calibrated(kind(tensors[0].device.type))
        notes = noted(self.graph, self.graph.graph, self.given, device)
        found = list(self._decided(notes, device))
        if not found:
            return self.graph
        new = fx.Graph()
        output = new.graph_copy(self.graph.graph, known := {})
        new.output(output)
        for region, decision in found:
            result = known[region.result]
            run = _Planned(decision.program, [n.name for n in region.inputs if n in self.weights])
            inputs = [n for n in region.inputs if n not in self.weights]
            weights = [n for n in region.inputs if n in self.weights]
            with new.inserting_after(result):
                node = new.call_function(run, tuple(known[n] for n in (*inputs, *weights)))
            node.meta.update(result.meta)
            result.replace_all_uses_with(node)
            log.info("%s: %.3g s to %.3g s", region.result.name, decision.before.seconds, decision.after.seconds)
            for old in reversed(region.nodes):
                if not known[old].users:
                    new.erase_node(known[old])
        new.lint()
        return fx.GraphModule(self.graph, new)

    def _decided(self, notes: Notes, device: Any) -> list[tuple[Region, Decision]]:
        graph = self.graph.graph
        barred = {n for n in graph.nodes if any(o.changes or o.random or o.casts for o in notes.operations.get(n, []))}
        found: list[tuple[Region, Decision]] = []
        fixed: dict[fx.Node, tuple[int, ...]] | None = None
        for region in regions(graph, notes.values, notes.operations, barred):
            if is_large(region, notes.operations) or not may_win(region, notes.operations):
                continue
            if fixed is None:
                varied = [not isinstance(m, nn.Parameter) for m in self.metas.values()]
                fixed = fixed_axes(self.graph, graph, self.given, notes, device, varied)
            try:
                found.append((region, self._decision(region, notes, fixed)))
            except (CutError, LeftError, ReadingError) as error:
                log.info("%s is left: %s", region.result.name, error)
        return found

    def _decision(self, region: Region, notes: Notes, fixed: Mapping[fx.Node, tuple[int, ...]]) -> Decision:
        inputs = [n for n in region.inputs if n not in self.weights]
        if not all(isinstance(notes.values[n], Tensor) for n in inputs):
            raise LeftError("takes numbers")
        generator = torch.Generator().manual_seed(0)
        holder = nn.Module()
        for node in region.inputs:
            if node in self.weights:
                meta = _concrete(self.metas[node])
                holder.register_parameter(node.name, nn.Parameter(drawn(meta, meta.dtype, generator)))
        dtype = next((t.dtype for t in self.given if isinstance(t, Tensor) and t.is_floating_point()), torch.float32)
        tensors = [drawn(notes.values[n], dtype, generator) for n in inputs]
        code = as_module(region, holder, lambda k: f"x{k}", {n: n.name for n in region.inputs if n in self.weights})
        run = Code(code.graph)
        static = [[i for i in fixed[n] if i or notes.values[n].shape[0] > 1] for n in inputs]

        decision = decided(
            code, run, lambda program: as_code(code, program, len(tensors)), tensors, self.objective, static
        )
        self._guard([n.meta.get("example_value") for n in inputs], code, run, decision.program, tensors)
        return decision

    def _guard(
        self, metas: Sequence[Any], module: nn.Module, run: Code, program: Program, tensors: Sequence[Tensor]
    ) -> None:
        """Let torch compile again for lengths at which the plan would not cost less."""
        symbols: dict[sympy.Symbol, Any] = {}
        for meta in metas:
            for length in meta.shape if isinstance(meta, Tensor) else ():
                if isinstance(length, torch.SymInt) and isinstance(length.node.expr, sympy.Symbol):
                    symbols.setdefault(length.node.expr, length)
        device = calibrated(kind(tensors[0].device.type))
        training = self.objective == "training"

        def pays(symbol: sympy.Symbol, value: int) -> bool:
            at = [_resized(t, m, symbol, value) for t, m in zip(tensors, metas, strict=True)]
            try:
                before, _ = price(lambda *t: run(module, *t), at, device, training)
                after, _ = price(lambda *t: program(module, *t), at, device, training)
            except RuntimeError:
                return False
            return after.seconds < before.seconds

        for symbol, length in symbols.items():
            hint = int(length.node.hint)
            least = end_of(lambda n, symbol=symbol: pays(symbol, n), hint, max(2, hint // FARTHEST))
            most = end_of(lambda n, symbol=symbol: pays(symbol, n), hint, hint * FARTHEST)
            # A comparison of symbols becomes a guard.
            if least > 2:
                bool(length >= least)
            if most < hint * FARTHEST:
                bool(length <= most)


def end_of(holds: Callable[[int], bool], start: int, limit: int) -> int:
    """Return the last number from a start towards a limit for which something holds that holds up to an end."""
    step = 1 if limit > start else -1
    good, far = start, start
    while far != limit:
        far = min(limit, far * 2) if step > 0 else max(limit, far // 2)
        if not holds(far):
            break
        good = far
    else:
        return limit
    while abs(far - good) > 1:
        middle = (good + far) // 2
        good, far = (middle, far) if holds(middle) else (good, middle)
    return good


class _Planned:
    """A region's program as a function of its inputs and then its weights."""

    def __init__(self, program: Program, names: Sequence[str]):
        self.program, self.names = program, tuple(names)
        self.__name__ = "polyattn_region"

    def __call__(self, *tensors: Tensor) -> Tensor:
        count = len(tensors) - len(self.names)
        held = SimpleNamespace(**dict(zip(self.names, tensors[count:], strict=True)))
        return self.program(held, *tensors[:count])


def _hint(length: Any) -> int:
    hint: Any = length.node.hint if isinstance(length, torch.SymInt) else length
    return int(hint)


def _concrete(meta: Any) -> Any:
    """Return a tensor, or a number, with the hints of symbolic lengths."""
    if isinstance(meta, torch.SymInt):
        return _hint(meta)
    if not isinstance(meta, Tensor):
        return meta
    shape, stride = [_hint(n) for n in meta.shape], [_hint(n) for n in meta.stride()]
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.empty_strided(shape, stride, dtype=meta.dtype, device=meta.device)


def _resized(tensor: Tensor, meta: Any, symbol: sympy.Symbol, value: int) -> Tensor:
    shape = []
    for length, now in zip(meta.shape, tensor.shape, strict=True):
        node: Any = length.node if isinstance(length, torch.SymInt) else None
        if node is not None and symbol in node.expr.free_symbols:
            hints = {s: int(node.shape_env.var_to_val[s]) for s in node.expr.free_symbols - {symbol}}
            now = int(node.expr.xreplace({**hints, symbol: value}))
        shape.append(now)
    return tensor.new_empty(shape) if tuple(shape) != tuple(tensor.shape) else tensor


def register() -> None:
    """Make the backend known to Dynamo by its name, where the package's entry point is not installed."""
    from torch._dynamo.backends import registry

    if "polyattn" not in registry._COMPILER_FNS:
        registry.register_backend(polyattn, name="polyattn")


register()
