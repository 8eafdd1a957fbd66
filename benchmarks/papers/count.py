"""Counting a network: parameters, multiply-accumulates as run, and multiply-accumulates by the BAT paper's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import polyattn.vision as vision
from polyattn.nn import BATBlock
from polyattn.vision.insert import CHILD, inserted
from polyattn.vision.trace import Hook, run

from .rules import block_operations, operations


@dataclass(frozen=True)
class Count:
    """The counts of one network.

    Attributes:
        parameters: number of parameters.
        macs: multiply-accumulates of matrix products and convolutions as run here; None if they depend on the image's
            content.
        by_the_papers_rules: multiply-accumulates by the BAT paper's rules, in its order of contraction; None for
            networks with blocks of other papers.
    """

    parameters: int
    macs: int | None = None
    by_the_papers_rules: int | None = None

    def minus(self, other: Count) -> Count:
        """Return the counts as differences to another network's."""
        return Count(
            self.parameters - other.parameters,
            _difference(self.macs, other.macs),
            _difference(self.by_the_papers_rules, other.by_the_papers_rules),
        )


def count(build: str, words: Mapping[str, Any], input: tuple[int, ...] | None = None) -> Count:
    """Build a network without memory for its weights, and count it.

    Args:
        build: the name of a builder in `polyattn.vision`.
        words: keyword arguments of the builder.
        input: shape of one image or clip, without the batch; None to count parameters alone.

    >>> count("resnet18", {}, (3, 224, 224))
    Count(parameters=11689512, macs=1814073344, by_the_papers_rules=1824519192)
    """
    make = resnet50_bat_full_resolution if build == resnet50_bat_full_resolution.__name__ else getattr(vision, build)
    with _ShapesOnly() as shapes:
        with _WithoutValues():
            model = make(**words)
        parameters = sum(p.numel() for p in model.parameters())
        if input is None:
            return Count(parameters)
        return Count(parameters, *_run(model, torch.zeros(1, *input, device="meta"), shapes))


def resnet50_bat_full_resolution() -> nn.Module:
    """Build a ResNet-50 whose BAT blocks have P and Q of their maps' sides, at 224 pixels (BAT, Table 2)."""
    sides = {"layer2": 28, "layer3": 14}
    blocks = {
        place: partial(BATBlock, block_size=sides[place.split(".")[0]]) for place in vision.places_of("resnet50", "bat")
    }
    return vision.resnet50(blocks)


def _run(model: nn.Module, example: Tensor, shapes: _ShapesOnly) -> tuple[int, int | None]:
    """Count multiply-accumulates of one run: as run, and by the paper's rules."""
    blocks = [target.get_submodule(CHILD) for target in inserted(model).values()]
    inside = {module for block in blocks for module in block.modules()}
    # Blocks are counted as a whole by their own rules, so their inner layers are left out.
    leaves = [m for m in model.modules() if m not in inside and not list(m.children())]
    # None marks a block without a rule: the total is then unknown, not smaller.
    numbers: list[int | None] = []
    hooks: dict[nn.Module, Hook] = dict.fromkeys(leaves, lambda m, _, y: numbers.append(operations(m, y)))
    hooks |= dict.fromkeys(blocks, lambda m, _, y: numbers.append(block_operations(m, y.shape)))
    before = shapes.flops
    run(model, example, hooks=hooks)
    known = [number for number in numbers if number is not None]
    return (shapes.flops - before) // 2, sum(known) if len(known) == len(numbers) else None


class _WithoutValues(DeviceContext):
    """`torch.device("meta")` without calls of initialisers, which would take most of the time."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _FILLING:
            # Initialisers return their tensor; on the meta device it has no values to set.
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)


_INITS = (nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_)
_FILLING = frozenset((*_INITS, Tensor.fill_, Tensor.zero_, Tensor.uniform_, Tensor.normal_))


@dataclass(frozen=True)
class _Result:
    """The cached result of an operation on the meta device: shapes of one or several tensors, and its FLOPs."""

    several: bool
    tensors: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]
    flops: int

    def made(self) -> Any:
        made = tuple(torch.empty_strided(n, strides, dtype=kind, device="meta") for n, strides, kind in self.tensors)
        return made if self.several else made[0]


_RESULTS: dict[Any, _Result] = {}


class _ShapesOnly(TorchDispatchMode):
    """A mode for meta tensors that computes the shapes of each distinct operation once, and sums its FLOPs.

    torch works most shapes out in Python at each call, which would take several times the time of all the rest. The
    FLOPs are those of torch's own counter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func) if args and isinstance(args[0], Tensor) and args[0].is_meta else "other"
        # Without values an in-place operation leaves its argument as it is.
        if kind == "in place":
            return args[0]
        if kind == "other":
            return func(*args, **kwargs)
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if key not in _RESULTS:
            result = func(*args, **kwargs)
            results = result if isinstance(result, tuple) else (result,)
            # A result with values, such as a number, cannot be replayed from shapes.
            if not all(isinstance(r, Tensor) and r.is_meta for r in results):
                return result
            count = flop_registry.get(func.overloadpacket)
            flops = count(*args, **kwargs, out_val=result) if count else 0
            tensors = tuple((r.shape, r.stride(), r.dtype) for r in results)
            _RESULTS[key] = _Result(isinstance(result, tuple), tensors, flops)
        self.flops += _RESULTS[key].flops
        return _RESULTS[key].made()


@cache
def _kind(func: Any) -> str:
    """Classify an operation by its schema.

    "new": its results are new tensors. "in place": it changes its first argument and returns it. "other": all else,
    such as views.
    """
    schema = func._schema
    aliases = [r.alias_info for r in schema.returns]
    if not schema.is_mutable and not any(aliases) and aliases:
        return "new"
    changed = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    # Resizing changes the first argument's shape, so it cannot be replayed by returning it.
    resizes = "resize" in schema.name or "set_" in schema.name
    return "in place" if changed[:1] == [True] and sum(changed) == len(aliases) == 1 and not resizes else "other"


def _described(value: Any) -> Any:
    """Convert an argument to a cache key: a tensor counts by shape, strides and dtype."""
    if isinstance(value, Tensor):
        return ("tensor", value.shape, value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, tuple | list) else (type(value), value)


def _difference(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
