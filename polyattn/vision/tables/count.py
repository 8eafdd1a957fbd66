"""Counting a network: its parameters, its multiply-accumulates, and these as the BAT paper counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

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
    with torch.device("meta"), _ShapesOnly():
        model = make(**words)
        parameters = sum(p.numel() for p in model.parameters())
        return Count(parameters, *_run(model, torch.zeros(1, *input))) if input else Count(parameters)


def resnet50_bat_full_resolution() -> nn.Module:
    """ResNet-50 with BAT blocks whose P and Q have the sides of their feature maps, at 224 pixels (BAT, Table 2)."""
    sides = {"layer2": 28, "layer3": 14}
    blocks = {
        place: partial(BATBlock, block_size=sides[place.split(".")[0]]) for place in vision.places_of("resnet50", "bat")
    }
    return vision.resnet50(blocks)


def _run(model: nn.Module, example: Tensor) -> tuple[int, int | None]:
    """Multiply-accumulates as they run, and by the paper's rules; of one run."""
    blocks = [target.get_submodule(CHILD) for target in inserted(model).values()]
    inside = {module for block in blocks for module in block.modules()}
    leaves = [m for m in model.modules() if m not in inside and not list(m.children())]
    numbers: list[int | None] = []
    hooks: dict[nn.Module, Hook] = dict.fromkeys(leaves, lambda m, _, y: numbers.append(operations(m, y)))
    hooks |= dict.fromkeys(blocks, lambda m, _, y: numbers.append(block_operations(m, y.shape)))
    with FlopCounterMode(display=False) as counter, _ShapesOnly():
        run(model, example, hooks=hooks)
    known = [number for number in numbers if number is not None]
    return counter.get_total_flops() // 2, sum(known) if len(known) == len(numbers) else None


aten = torch.ops.aten
IN_PLACE = {aten.normal_.default, aten.uniform_.default, aten.fill_.Scalar, aten.zero_.default, aten.relu_.default,
            aten.add_.Tensor, aten.copy_.default}  # fmt: skip


class _ShapesOnly(TorchDispatchMode):
    """Batch norms, initial values and additions in place give tensors of the right shape at once.

    Without memory there is nothing else to compute, and torch works these shapes out in Python, operation by operation,
    which takes several times the time of all the rest.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is aten.native_batch_norm.default and args[0].is_meta:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        if func in IN_PLACE and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _difference(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
