"""Copies of a network with layers replaced, in which all else stays: sharing, modes, hooks, frozen parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from polyattn.fitting.layers import FactoredNonLocal, TrainedLayer
from polyattn.nn import Attention, NonLocal

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
"""The attributes in which `nn.Module` keeps the hooks on its calls."""


def attention_of(module: nn.Module) -> Attention:
    """Return the module with the parameters of a factored layer."""
    assert isinstance(module, Attention | FactoredNonLocal)
    return module if isinstance(module, Attention) else module.attention


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, then each module back into its own mode: some may be frozen."""
    modes = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """Run in float64, then put each parameter and buffer back into its own precision."""
    own = [(t, t.dtype) for t in (*model.parameters(), *model.buffers())]
    own += [(p.grad, p.grad.dtype) for p in model.parameters() if p.grad is not None]
    try:
        for tensor, _ in own:
            tensor.data = tensor.data.double() if tensor.is_floating_point() else tensor.data
        yield
    finally:
        for tensor, dtype in own:
            tensor.data = tensor.data.to(dtype)


def replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Copy the model with some modules replaced by factored layers, wherever the model refers to them.

    The replacements take the place of the old modules in the copy: their residual's scalars and norm are those of the
    copy, so that ties with other modules stay, and they get the old modules' hooks and mode. A parameter is frozen
    where all of the old module's are.
    """
    made = copy.deepcopy(model)
    at = {name: made.get_submodule(name) for name in modules}
    new = {id(old): _in_place_of(old, modules[name]) for name, old in at.items()}
    if id(made) in new:
        return new[id(made)]
    for parent in list(made.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new:
                parent._modules[name] = new[id(child)]
        # References beside the registered children, such as a plain list of layers.
        for name, value in vars(parent).items():
            if not name.startswith("_"):
                vars(parent)[name] = _substituted(value, new)
    return made


def _substituted(value: object, new: Mapping[int, nn.Module]) -> object:
    if id(value) in new:
        return new[id(value)]
    if type(value) in (list, tuple):
        items = [_substituted(v, new) for v in value]  # pyright: ignore[reportGeneralTypeIssues]
        return type(value)(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value  # pyright: ignore
    if type(value) is dict:
        return {k: _substituted(v, new) for k, v in value.items()}
    return value


def _in_place_of(old: nn.Module, module: nn.Module) -> nn.Module:
    """Give a copy of a factored layer the module's parts beside its polynomial."""
    assert isinstance(old, Attention | NonLocal)
    # The scalars and the norm are the old ones, so only the polynomial is copied.
    own = attention_of(module)
    attention = copy.deepcopy(own)
    frozen = not any(p.requires_grad for p in polynomial_parameters(old))
    for _, parameter in attention._parameters_of_spec():
        parameter.requires_grad_(not frozen)
    attention.train(old.training)
    if isinstance(old, Attention):
        made: nn.Module = attention
        for name in ("alpha", "beta"):
            if getattr(old, name) is not None:
                setattr(attention, name, getattr(old, name))
    else:
        made = FactoredNonLocal(attention, old.norm)
        made.training = old.training
    for name in HOOKS:
        setattr(made, name, getattr(old, name))
    return made


def polynomial_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that a factored layer replaces: all but the residual's scalars and the norm's."""
    assert isinstance(module, Attention | NonLocal)
    if isinstance(module, Attention):
        return [p for _, p in module._parameters_of_spec()]
    norm = {id(p) for p in module.norm.parameters()} if module.norm is not None else set()
    return [p for p in module.parameters() if id(p) not in norm]


def tied(model: nn.Module, layer: TrainedLayer) -> str | None:
    """Return the name of a parameter elsewhere in the model that is one of those that would be replaced."""
    own = {id(p) for p in polynomial_parameters(layer.module)}
    inside = {id(m) for m in layer.module.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside:
            for key, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in own:
                    return f"{name}.{key}".lstrip(".")
    return None


@contextmanager
def random_state_kept(model: nn.Module) -> Iterator[None]:
    """Put torch's global random state back, on the processor and on the model's devices."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        yield
