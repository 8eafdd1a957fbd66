"""`is_plain`: whether a block may read a layer's weights instead of calling the layer.

A block computes a plain layer together with its neighbours, as part of a plan. Every other layer is called: one with
hooks (`spectral_norm`, `weight_norm`, pruning and FSDP2 are such), with a parametrization, with quantised weights, or
of another class, such as an adapter that replaced it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registered
from torch.utils.module_tracker import ModuleTracker

Class = TypeVar("Class", bound=type[nn.Module])

PLAIN = frozenset(
    {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.Sequential}
)
"""Classes of torch whose weights determine their function; `computes_as_torch` marks those of polyattn."""


def computes_as_torch(kind: Class) -> Class:
    """Mark a class that computes the function of its torch base class; its own subclasses are not marked."""
    setattr(kind, "computes_as_torch", kind)  # noqa: B010, the attribute is declared nowhere
    return kind


def is_plain(*layers: nn.Module | None) -> bool:
    """Return whether a call of each layer would do no more than its class says of its weights; None counts as plain."""
    if _observed():
        return False
    for layer in layers:
        if layer is None:
            continue
        kind, state = type(layer), layer.__dict__
        if kind not in PLAIN and getattr(kind, "computes_as_torch", None) is not kind:
            return False
        if (
            "forward" in state
            or layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
        ):
            return False
        parameters = layer._parameters
        # Old-style weight norm, spectral norm and pruning make `weight` an attribute, parametrizations a property.
        if kind is not nn.Sequential and ("weight" not in parameters or _is_wrapped(parameters.values())):
            return False
    return True


def precision(norm: nn.Module, x: Tensor) -> torch.dtype:
    """Return the dtype in which a norm takes x: that of its parameters or statistics; without any, float32 at least."""
    for held in chain(norm.parameters(), norm.buffers()):
        if held.is_floating_point():
            return held.dtype
    return torch.promote_types(x.dtype, torch.float32)


def _observed() -> bool:
    """Return whether hooks of all modules are registered, other than those of torch's own counters."""
    hooks = (
        registered._global_forward_hooks,
        registered._global_forward_pre_hooks,
        registered._global_backward_hooks,
        registered._global_backward_pre_hooks,
    )
    if not any(hooks):
        return False
    # `FlopCounterMode` only follows which module runs; with layers called it would count another program.
    owners = (getattr(hook, "__self__", None) for hook in chain(*(found.values() for found in hooks)))
    return not all(isinstance(owner, ModuleTracker) for owner in owners)


def _is_wrapped(parameters: Iterable[Tensor | None]) -> bool:
    """Return whether a parameter is a tensor that holds others, such as quantised or distributed weights."""
    for parameter in parameters:
        kind = type(parameter)
        if kind is not nn.Parameter and kind is not torch.Tensor and hasattr(kind, "__tensor_flatten__"):
            return True
    return False
