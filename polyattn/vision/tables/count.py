"""Counting a network: its parameters, its multiply-accumulates, and these as the BAT paper counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import polyattn.vision as vision
from polyattn.vision.cost import cost
from polyattn.vision.insert import CHILD, inserted
from polyattn.vision.tables.rules import block_operations, operations
from polyattn.vision.trace import run


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
    Count(parameters=11689512, macs=1814073344, by_the_papers_rules=1824519656)
    """
    with torch.device("meta"):
        model = getattr(vision, build)(**words)
        if input is None:
            return Count(sum(p.numel() for p in model.parameters()))
        example = torch.zeros(1, *input)
    price = cost(model, example)
    return Count(price.parameters, price.macs, by_the_papers_rules(model, example))


def by_the_papers_rules(model: nn.Module, example: torch.Tensor) -> int | None:
    """Operations of one run, counted as `polyattn.vision.tables.rules` says; None if it does not say."""
    blocks = [target.get_submodule(CHILD) for target in inserted(model).values()]
    inside = {module for block in blocks for module in block.modules()}
    total: int | None = 0

    def add(number: int | None) -> None:
        nonlocal total
        total = None if total is None or number is None else total + number

    def leaf(module: nn.Module, inputs: Any, output: Any) -> None:
        add(operations(module, output))

    def block(module: nn.Module, inputs: Any, output: Any) -> None:
        add(block_operations(module, output.shape))

    leaves = [m for m in model.modules() if m not in inside and not list(m.children())]
    run(model, example, hooks=dict.fromkeys(leaves, leaf) | dict.fromkeys(blocks, block))
    return total


def _difference(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other
