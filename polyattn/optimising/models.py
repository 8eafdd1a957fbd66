"""`optimise`: regions of a model's forward passes on plans that are proved equal and cost less."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from polyattn.errors import OptimisingError, ReadingError
from polyattn.lowering import calibrated, kind
from polyattn.optimising.deciding import CutError, Decision, LeftError, NoGainError, decided, tried
from polyattn.optimising.planned import Code, PlannedForward, PlannedRegion, is_hooked
from polyattn.optimising.regions import Region, as_module, is_large, may_win, regions
from polyattn.optimising.report import Optimised, Replacement
from polyattn.optimising.tracing import Binding, Notes, bound, fixed_axes, noted, traced

_PLAIN = (bool, int, float, str, tuple, type(None), torch.Size, torch.dtype)
OBJECTIVES = ("forward", "training")
TRIES = 4
"""Times that a region is drawn again without the operations that have no meaning."""


def optimise(
    model: nn.Module,
    example: Sequence[Any] | Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    objective: str = "forward",
) -> Optimised:
    """Replace regions of a model's forward passes, in place, by plans that are proved equal and cost less.

    In the forward pass of each submodule the largest regions with one result are sought that read as an equation
    (`polyattn.read`) without cuts. A region is replaced if its plan is priced lower by the calibrated roofline, loses
    no more digits, and if the equation read from the planned code is proved equal to the region's own, at every size.
    Parameters, buffers, state-dict keys, hooks and submodules stay. A planned region runs as it was where its equation
    does not hold: with hooks on a submodule inside, in training if it has dropout or batch statistics, with other fixed
    sizes or another submodule in its place, or at sizes where the plan costs more.

    Args:
        model: any module; it is run once, as a copy in evaluation mode.
        example: the model's arguments, such as (torch.randn(2, 3, 224, 224),).
        kwargs: its keyword arguments.
        objective: "forward", or "training" for a forward and a backward pass.

    Returns:
        An `Optimised`: its text is a table of the regions, `undo()` restores the model.

    Raises:
        OptimisingError: `objective` is unknown, `model` is not a module or cannot be copied, or it does not run on the
            example. The model is then as it was.

    >>> class Chain(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.u, self.v = nn.Linear(256, 8, bias=False), nn.Linear(8, 256, bias=False)
    ...
    ...     def forward(self, x):
    ...         return x @ (self.u.weight.mT @ self.v.weight.mT)
    >>> model = Chain()
    >>> [r.after.macs < r.before.macs for r in optimise(model, torch.randn(4, 16, 256))]
    [True]
    """
    args = (example,) if isinstance(example, Tensor) else example
    _check(model, args, objective)
    calls = _calls(model, tuple(args), dict(kwargs or {}))
    done: list[tuple[nn.Module, PlannedForward]] = []
    replaced: list[Replacement] = []
    left: list[tuple[str, str]] = []
    known: dict[Any, Any] = {}
    inside: set[str] = set()
    with _undisturbed():
        for name, module in model.named_modules(remove_duplicate=True):
            if name not in calls or name in inside:
                continue
            if isinstance(module.__dict__.get("forward"), PlannedForward):
                left.append((name or type(model).__name__, "planned before"))
                continue
            one = _Module(name or type(model).__name__, module, calls[name], objective, left, known)
            one.inside, one.prefix = inside, f"{name}." if name else ""
            planned = one.planned()
            if planned is not None:
                done.append((module, planned))
                replaced += one.replaced
    restore: list[Callable[[], None]] = []
    for module, planned in done:
        module.forward = planned
        restore.append(lambda module=module, planned=planned: _restored(module, planned))
    return Optimised(tuple(replaced), tuple(left), objective, restore)


def _restored(module: nn.Module, planned: PlannedForward) -> None:
    if module.__dict__.get("forward") is planned:
        del module.__dict__["forward"]


def _check(model: Any, args: Any, objective: Any) -> None:
    if not isinstance(model, nn.Module):
        raise OptimisingError(f"`model` is a {type(model).__name__}; expected a torch.nn.Module")
    if objective not in OBJECTIVES:
        raise OptimisingError(f"`objective` is {objective!r}; expected {' or '.join(map(repr, OBJECTIVES))}")
    if not isinstance(args, Sequence) or isinstance(args, str):
        raise OptimisingError(
            f"`example` is a {type(args).__name__}; expected the model's arguments, such as (torch.randn(2, 5, 64),)"
        )


def _calls(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the arguments of the first call of each submodule, by its name."""
    try:
        shadow = copy.deepcopy(model).eval()
    except Exception as error:
        raise OptimisingError(f"`model` cannot be copied: {type(error).__name__}: {error}") from error
    found: dict[str, tuple[Any, Any]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, a: Any, k: Any) -> None:
            found.setdefault(name, (a, k))

        return hook

    for name, module in shadow.named_modules():
        module.register_forward_pre_hook(note(name), with_kwargs=True)
    try:
        with torch.no_grad(), torch.random.fork_rng(), _quiet():
            shadow(*_copied(args), **kwargs)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise OptimisingError(
            f"`example` does not fit: {type(model).__name__} raises {type(error).__name__}: {first}"
        ) from error
    return found


def _copied(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v.clone() if isinstance(v, Tensor) else v for v in values)


@contextmanager
def _quiet() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the state of torch's random numbers, and its warnings away."""
    with torch.random.fork_rng(), _quiet():
        yield


class _Module:
    """One submodule, in evaluation mode, on the arguments of the example."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        call: tuple[Any, Any],
        objective: str,
        left: list[tuple[str, str]],
        known: dict[Any, Any],
    ):
        self.name, self.module, self.call, self.objective = name, module, call, objective
        self.left, self.known = left, known
        self.replaced: list[Replacement] = []
        self.inside: set[str] = set()
        self.prefix = ""
        self._tensors: list[Tensor] = []
        self._fixed: dict[fx.Node, tuple[int, ...]] | None = None

    def planned(self) -> PlannedForward | None:
        """Return the module's planned forward pass, or None if nothing is replaced."""
        if type(self.module).forward.__module__.startswith("torch.nn.modules") and not list(self.module.children()):
            return None
        if "forward" in self.module.__dict__:
            self.left.append((self.name, "its `forward` is not its class's"))
            return None
        try:
            shadow = copy.deepcopy(self.module).eval()
            binding, tensors = bound(shadow, *self.call)
            graph = traced(shadow, binding, len(tensors))
            notes = noted(shadow, graph, tensors, calibrated(kind(tensors[0].device.type)))
        except (ReadingError, IndexError) as error:
            return self._whole(str(error))
        modes = (False, True) if self._same_in_training(shadow, binding, graph, len(tensors)) else (False,)
        self._tensors, self._fixed = tensors, None
        found = list(self._decided(shadow, graph, notes))
        if not found:
            return None
        return self._installed(found, graph, binding, modes)

    def _same_in_training(self, shadow: nn.Module, binding: Binding, graph: fx.Graph, count: int) -> bool:
        try:
            other = traced(copy.deepcopy(shadow).train(), binding, count)
        except ReadingError:
            return False
        return str(other) == str(graph)

    def _whole(self, reason: str) -> None:
        self.left.append((self.name, reason))

    def _decided(self, shadow: nn.Module, graph: fx.Graph, notes: Notes) -> Iterator[tuple[Region, Decision]]:
        barred = {n for n in graph.nodes if self._is_barred(shadow, n, notes)}
        tried: set[fx.Node] = set()
        for _ in range(TRIES):
            cut = False
            for region in regions(graph, notes.values, notes.operations, barred):
                if region.result in tried or is_large(region, notes.operations):
                    continue
                if not may_win(region, notes.operations):
                    continue
                try:
                    decision = self._decision(shadow, region, notes)
                except CutError as error:
                    own = {n for n in region.nodes if _has(notes, n, error.operations)}
                    if own:
                        barred |= own
                        cut = True
                    else:
                        self._leave(region, str(error))
                        tried.add(region.result)
                except LeftError as error:
                    self._leave(region, str(error))
                    tried.add(region.result)
                    if isinstance(error, NoGainError):
                        self._absorb(region)
                else:
                    tried.add(region.result)
                    self._absorb(region)
                    yield region, decision
            if not cut:
                return

    def _absorb(self, region: Region) -> None:
        """Note the submodules inside a region: they are not looked at by themselves."""
        for node in region.nodes:
            if node.op == "call_module":
                inner = self.module.get_submodule(str(node.target)).named_modules(prefix=f"{self.prefix}{node.target}")
                self.inside |= {name for name, _ in inner}

    def _leave(self, region: Region, reason: str) -> None:
        self.left.append((f"{self.name}: {region.result.name}", reason))

    def _is_barred(self, shadow: nn.Module, node: fx.Node, notes: Notes) -> bool:
        if node.op == "call_module":
            own = self.module.get_submodule(str(node.target))
            if any(is_hooked(m) or hasattr(m, "parametrizations") for m in own.modules()):
                return True
        return any(o.changes or o.random or o.casts for o in notes.operations.get(node, []))

    def _decision(self, shadow: nn.Module, region: Region, notes: Notes) -> Decision:
        code = as_module(region, shadow, lambda k: f"x{k}")
        examples = [notes.values[n] for n in region.inputs]
        if not all(isinstance(t, Tensor) for t in examples):
            raise LeftError("takes numbers")
        key = self._key(code, region, notes)
        generator = torch.Generator().manual_seed(0)
        dtype = next((p.dtype for p in shadow.parameters() if p.is_floating_point()), torch.get_default_dtype())
        tensors = [drawn(t, dtype, generator) for t in examples]
        run = Code(code.graph)
        known = self.known.get(key)
        if isinstance(known, Decision):
            # Of another module with the same code, shapes and numbers.
            tried(shadow, run, known.program, tensors)
            return known
        if known is None:
            if self._fixed is None:
                device = calibrated(kind(tensors[0].device.type))
                self._fixed = fixed_axes(shadow, next(iter(notes.values)).graph, self._tensors, notes, device)
            # The batch of one that is doubled to be read is no number.
            static = [[i for i in self._fixed[n] if i or notes.values[n].shape[0] > 1] for n in region.inputs]
            try:
                known = decided(
                    shadow, run, lambda program: as_code(code, program, len(tensors)), tensors, self.objective, static
                )
            except LeftError as error:
                known = error
            except Exception as error:
                # Whatever fails here, the model stays as it is.
                known = LeftError(f"fails with {type(error).__name__}: {str(error).partition(chr(10))[0][:100]}")
            if key is not None:
                self.known[key] = known
        if isinstance(known, LeftError):
            raise known
        return known

    def _key(self, code: fx.GraphModule, region: Region, notes: Notes) -> Any:
        """Return all that a decision depends on but the values of parameters; None if that is not known."""
        found: list[Any] = [code.code, self.objective, type(self.module)]
        for node in (*region.inputs, *region.nodes):
            value = notes.values[node]
            found.append((tuple(value.shape), value.stride()) if isinstance(value, Tensor) else repr(value))
            found.append(tuple(notes.operations.get(node, ())))
        for name, module in code.named_modules():
            if not name:
                continue
            numbers = [(k, v) for k, v in vars(module).items() if not k.startswith("_")]
            if not all(isinstance(v, _PLAIN) for _, v in numbers):
                return None
            found.append((name, type(module), repr(sorted(numbers, key=lambda pair: pair[0]))))
        plain = {k: v for k, v in vars(self.module).items() if not k.startswith("_")}
        if not all(isinstance(v, _PLAIN) for v in plain.values()):
            return None
        found.append(repr(sorted(plain.items())))
        held = [*code.named_parameters(), *code.named_buffers()]
        return (*found, tuple((name, tuple(t.shape), t.dtype) for name, t in held))

    def _installed(
        self, found: Sequence[tuple[Region, Decision]], graph: fx.Graph, binding: Binding, modes: tuple[bool, ...]
    ) -> PlannedForward:
        made: list[PlannedRegion] = []
        originals = {
            region.result: Code(as_module(region, self.module, lambda k: f"x{k}").graph) for region, _ in found
        }
        first = next(iter(graph.nodes))
        with graph.inserting_before(first):
            owner = graph.placeholder("module")
        for region, decision in found:
            absorbed = [
                ((*str(n.target).split("."), *inner.split(".")) if inner else tuple(str(n.target).split(".")), type(m))
                for n in region.nodes
                if n.op == "call_module"
                for inner, m in self.module.get_submodule(str(n.target)).named_modules()
            ]
            own = self._modes(region)
            one = PlannedRegion(decision.program, originals[region.result], absorbed, own, self.objective)
            made.append(one)
            with graph.inserting_after(region.result):
                node = graph.call_function(one, (owner, *region.inputs))
            region.result.replace_all_uses_with(node)
            node.args = (owner, *region.inputs)
            self.replaced.append(
                Replacement(
                    f"{self.name}: {region.result.name}",
                    decision.reading,
                    decision.before,
                    decision.after,
                    decision.verdict,
                )
            )
        for region, _ in found:
            for node in reversed(region.nodes):
                if not node.users:
                    graph.erase_node(node)
        graph.lint()
        return PlannedForward(self.module, binding, Code(graph), made, modes)

    def _modes(self, region: Region) -> tuple[bool, ...]:
        """Return the values of `training` for which a region equals its reading."""
        depends = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
        absorbed = [n for n in region.nodes if n.op == "call_module"]
        modules = [m for n in absorbed for m in self.module.get_submodule(str(n.target)).modules()]
        plain = all(type(m).forward.__module__.startswith("torch.nn.modules") for m in modules)
        return (False, True) if plain and not any(isinstance(m, depends) for m in modules) else (False,)


def _has(notes: Notes, node: fx.Node, operations: Sequence[str]) -> bool:
    own = {o.name.strip("_") for o in notes.operations.get(node, [])}
    words = {str(getattr(node.target, "__name__", node.target))}
    return any(name.strip("_") in own | words for name in operations)


def drawn(example: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return positive numbers of an example's shape, order in memory and device."""
    if not example.is_floating_point():
        return torch.zeros(example.shape, dtype=example.dtype)
    found = torch.rand(example.shape, generator=generator).to(dtype).to(example.device)
    out = torch.empty_strided(example.shape, example.stride(), dtype=dtype, device=example.device)
    return out.copy_(found)


def as_code(code: fx.GraphModule, program: Any, count: int) -> nn.Module:
    """Return a region as a module; with a program in the place of its code, if one is given."""
    if program is None:
        return code
    shadow: Any = copy.deepcopy(code)
    names = ", ".join(f"x{k}" for k in range(count))
    space: dict[str, Any] = {"program": program}
    exec(f"def forward(self, {names}): return program(self, {names})", space)
    shadow.__class__ = type("Planned", (nn.Module,), {"forward": space["forward"]})
    return shadow
