"""Counting a network: its parameters, its multiply-accumulates, and these as the BAT paper counts them."""

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
from polyattn.vision.tables.rules import block_operations, operations
from polyattn.vision.trace import Hook, run


@dataclass(frozen=True)
class Count:
    """What was counted of one network.

    Attributes:
        parameters: their number.
        macs: multiply-accumulates of matrix products and convolutions, as they run here; None where they depend on
            what is in the image.
        by_the_papers_rules: as the BAT paper counts, in its own order of contraction; None for networks with blocks
            that the paper does not have.
    """

    parameters: int
    macs: int | None = None
    by_the_papers_rules: int | None = None

    def minus(self, other: Count) -> Count:
        """Both counted figures as differences to another network's."""
        return Count(
            self.parameters - other.parameters,
            _difference(self.macs, other.macs),
            _difference(self.by_the_papers_rules, other.by_the_papers_rules),
        )


def count(build: str, words: Mapping[str, Any], input: tuple[int, ...] | None = None) -> Count:
    """Build a network without memory for its weights, and count it.

    Args:
        build: the name of a builder in `polyattn.vision`.
        words: for the builder.
        input: the shape of one image or clip, without the batch; None to count parameters alone.

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
    """ResNet-50 with BAT blocks whose P and Q have the sides of their feature maps, at 224 pixels (BAT, Table 2)."""
    sides = {"layer2": 28, "layer3": 14}
    blocks = {
        place: partial(BATBlock, block_size=sides[place.split(".")[0]]) for place in vision.places_of("resnet50", "bat")
    }
    return vision.resnet50(blocks)


def _run(model: nn.Module, example: Tensor, shapes: _ShapesOnly) -> tuple[int, int | None]:
    """Multiply-accumulates as they run, and by the paper's rules; of one run."""
    blocks = [target.get_submodule(CHILD) for target in inserted(model).values()]
    inside = {module for block in blocks for module in block.modules()}
    leaves = [m for m in model.modules() if m not in inside and not list(m.children())]
    numbers: list[int | None] = []
    hooks: dict[nn.Module, Hook] = dict.fromkeys(leaves, lambda m, _, y: numbers.append(operations(m, y)))
    hooks |= dict.fromkeys(blocks, lambda m, _, y: numbers.append(block_operations(m, y.shape)))
    before = shapes.flops
    run(model, example, hooks=hooks)
    known = [number for number in numbers if number is not None]
    return (shapes.flops - before) // 2, sum(known) if len(known) == len(numbers) else None


class _WithoutValues(DeviceContext):
    """`torch.device("meta")` where initial values are not even asked for, which would take most of the time."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in _FILLING:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, kwargs)


_INITS = (nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_)
_FILLING = frozenset((*_INITS, Tensor.fill_, Tensor.zero_, Tensor.uniform_, Tensor.normal_))


@dataclass(frozen=True)
class _Result:
    """What an operation on the meta device gives: one tensor or several, and its FLOPs."""

    several: bool
    tensors: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype], ...]
    flops: int

    def made(self) -> Any:
        made = tuple(torch.empty_strided(n, strides, dtype=kind, device="meta") for n, strides, kind in self.tensors)
        return made if self.several else made[0]


_RESULTS: dict[Any, _Result] = {}


class _ShapesOnly(TorchDispatchMode):
    """Without memory there is nothing to compute but shapes, and each operation's are computed once; adds up its FLOPs.

    torch works most shapes out in Python, again for each call, which takes several times the time of all the rest. The
    FLOPs are those of torch's own counter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func) if args and isinstance(args[0], Tensor) and args[0].is_meta else "other"
        if kind == "in place":
            return args[0]
        if kind == "other":
            return func(*args, **kwargs)
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if key not in _RESULTS:
            result = func(*args, **kwargs)
            results = result if isinstance(result, tuple) else (result,)
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
    """ "new", where the results are tensors of their own; "in place", where the first argument is changed and given
    back; "other", such as views."""
    schema = func._schema
    aliases = [r.alias_info for r in schema.returns]
    if not schema.is_mutable and not any(aliases) and aliases:
        return "new"
    changed = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    resizes = "resize" in schema.name or "set_" in schema.name
    return "in place" if changed[:1] == [True] and sum(changed) == len(aliases) == 1 and not resizes else "other"


def _described(value: Any) -> Any:
    """An argument as a key: of a tensor what its shape-only computation depends on."""
    if isinstance(value, Tensor):
        return ("tensor", value.shape, value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, tuple | list) else (type(value), value)


def _difference(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
