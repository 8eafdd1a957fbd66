"""Replacement of a module's `forward`: regions on their plans, all else as it was."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from itertools import count
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn

from polyattn.lowering import calibrated, kind
from polyattn.optimising.pricing import price
from polyattn.optimising.program import Program
from polyattn.optimising.tracing import Binding

_numbers = count()


class Code:
    """A graph as a function of a module and tensors, which finds submodules and parameters in the module at hand."""

    def __init__(self, graph: fx.Graph):
        made = graph.python_code("self")
        self.source, self.globals = made.src, dict(made.globals)
        self._compile()

    def _compile(self) -> None:
        name = f"<polyattn planned {next(_numbers)}>"
        space = dict(self.globals)
        exec(compile(self.source, name, "exec"), space)
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        self.run: Callable[..., Any] = space["forward"]

    def __call__(self, module: nn.Module, *tensors: Any) -> Any:
        return self.run(module, *tensors)

    def __getstate__(self) -> dict[str, Any]:
        plain = {n: _Module(v.__name__) if isinstance(v, ModuleType) else v for n, v in self.globals.items()}
        return {"source": self.source, "globals": plain}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.source = state["source"]
        self.globals = {n: v() if isinstance(v, _Module) else v for n, v in state["globals"].items()}
        self._compile()

    def __deepcopy__(self, memo: dict[int, Any]) -> Code:
        return self


class _Module:
    """A module of Python by its name, for pickles."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self) -> ModuleType:
        import importlib

        return importlib.import_module(self.name)


class PlannedRegion:
    """A region of a forward pass: on its plan where that holds and pays, as it was elsewhere.

    Args:
        program: the region on its plan.
        original: the region as it was; None if it is the whole forward pass.
        absorbed: the submodules that it computes itself: their attributes and classes.
        modes: the values of `training` for which the equation holds.
        objective: for which it has to pay.
    """

    def __init__(
        self,
        program: Program,
        original: Code | None,
        absorbed: Sequence[tuple[tuple[str, ...], type]],
        modes: tuple[bool, ...],
        objective: str,
    ):
        self.program, self.original = program, original
        self.absorbed, self.modes, self.objective = tuple(absorbed), modes, objective
        self._paid: dict[tuple[int, ...], bool] = {}
        self.__name__ = "polyattn_region"  # in generated code

    def holds(self, module: nn.Module, tensors: Sequence[Tensor]) -> bool:
        """Return whether the plan may run: no hooks inside, the submodules of the example, and sizes that fit."""
        if module.training not in self.modes:
            return False
        for path, kind_of in self.absorbed:
            held: Any = module
            for name in path:
                held = getattr(held, name)
            if type(held) is not kind_of or held.training not in self.modes or is_hooked(held):
                return False
        return self.program.fits(*tensors)

    def pays(self, module: nn.Module, tensors: Sequence[Tensor]) -> bool:
        """Return whether the plan costs less at these sizes; asked once for sizes with the same powers of two."""
        key = tuple([n.bit_length() for t in tensors for n in t.shape])
        found = self._paid.get(key)
        if found is None:
            found = self._paid[key] = self.costs_less(module, tensors)
        return found

    def costs_less(self, module: nn.Module, tensors: Sequence[Tensor]) -> bool:
        original = self.original
        if original is None:
            return True
        device = calibrated(kind(tensors[0].device.type))
        training = self.objective == "training"
        try:
            before, _ = price(lambda *t: original(module, *t), tensors, device, training)
            after, _ = price(lambda *t: self.program(module, *t), tensors, device, training)
        except RuntimeError:
            return False
        return after.seconds < before.seconds

    def __call__(self, module: nn.Module, *tensors: Tensor) -> Tensor:
        if self.holds(module, tensors) and (torch.compiler.is_compiling() or self.pays(module, tensors)):
            return self.program(module, *tensors)
        assert self.original is not None
        return self.original(module, *tensors)

    def __deepcopy__(self, memo: dict[int, Any]) -> PlannedRegion:
        return self


class PlannedForward:
    """The forward pass of a module with planned regions.

    Args:
        module: the module.
        binding: how its arguments are taken; a call with others runs the class's forward pass.
        code: the graph with regions in it; None if there is one region, the whole.
        regions: the regions.
        modes: the values of `training` for which the graph is that of the class.
    """

    def __init__(
        self,
        module: nn.Module,
        binding: Binding,
        code: Code | None,
        regions: Sequence[PlannedRegion],
        modes: tuple[bool, ...],
    ):
        self.module, self.binding, self.code = module, binding, code
        self.regions, self.modes = tuple(regions), modes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self.module
        if module.training in self.modes:
            tensors = self.binding.tensors(args, kwargs)
            if tensors is not None:
                if self.code is not None:
                    return self.code.run(module, module, *tensors)
                region = self.regions[0]
                if region.holds(module, tensors) and (torch.compiler.is_compiling() or region.pays(module, tensors)):
                    return region.program(module, *tensors)
        return type(module).forward(module, *args, **kwargs)


def is_hooked(module: nn.Module) -> bool:
    """Return whether hooks would run with a module's forward pass, or it is not its class's."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
