"""Cost models: the price of a graph's steps, in multiply-accumulates or in seconds of a roofline."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from polyattn.planning.graph import ITEMSIZE, Graph
from polyattn.planning.steps import (
    Add,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Node,
    is_matrix_product,
    loop_indices,
    materialises_product,
    numel,
)

COSTS = ("roofline", "macs")


@dataclass(frozen=True)
class Device:
    """A device as the roofline sees it.

    Attributes:
        name: its name in tables.
        macs_per_second: rate of a large matrix product.
        bytes_per_second: rate of reads and writes of memory.
        step_seconds: overhead of one operation.
        tile: the side at which a matrix product reaches half of its rate.
        itemsize: bytes of an entry, in the dtype of these figures.
        kind: "cpu" or "cuda"; selects the fused kernels.
    """

    name: str
    macs_per_second: float
    bytes_per_second: float
    step_seconds: float
    tile: int = 8
    itemsize: int = ITEMSIZE
    kind: str = "cpu"

    def seconds(self, graph: Graph) -> float:
        """Sum a graph's steps, each at the larger of its arithmetic and its traffic."""
        return sum(self.step(graph, node) for node in graph.nodes)

    def step(self, graph: Graph, node: Node) -> float:
        """Estimate one step by the roofline, in seconds."""
        # Inputs exist already; identities and constants are counted as free.
        if isinstance(node, Leaf | Constant | Identity):
            return 0.0
        sizes = graph.known
        traffic = self.itemsize * (numel(node.output, sizes) + sum(numel(o.indices, sizes) for o in node.operands))
        if isinstance(node, Add) and len(node.operands) == 1:
            return _seconds(traffic, self.bytes_per_second) + self.step_seconds
        if materialises_product(node):
            # Torch writes the elementwise product and reads it back before the sum.
            traffic += 2 * self.itemsize * numel(loop_indices(node), sizes)
        arithmetic = 0.0
        if is_matrix_product(node) and isinstance(node, Contract):
            left, right = node.sides
            if not (left or right):
                # An inner product reads each entry once: its traffic is all of it.
                return _seconds(traffic, self.bytes_per_second) + self.step_seconds
            # Short sides leave tiles of the matrix units empty; each side costs its own share of the rate.
            efficiency = 1.0
            for side in (left, right, node.summed):
                extent = numel(side, sizes)
                efficiency *= extent / (extent + self.tile)
            arithmetic = _seconds(graph.macs_of(node), self.macs_per_second * efficiency)
        elif isinstance(node, Convolve) and len(node.operands) == 2:
            # Both operands' channels fill the tiles; a convolution of each channel by itself fills a row of them.
            summed, mine = (i for o in node.operands for i in o.indices if i not in node.output), node.operands[1]
            own = [i for i in mine.indices if i in node.output and i not in node.operands[0].indices]
            extent = numel(own, sizes), numel(dict.fromkeys(summed), sizes)
            efficiency = extent[0] / (extent[0] + self.tile) * extent[1] / (extent[1] + self.tile)
            arithmetic = _seconds(graph.macs_of(node), self.macs_per_second * efficiency)
        return max(arithmetic, _seconds(traffic, self.bytes_per_second)) + self.step_seconds


CPU = Device("two CPU cores", 100e9, 18e9, 6e-6, 16)
CUDA = Device("one data-centre GPU", 25e12, 3.5e12, 6e-6, 64, kind="cuda")
CUDA_NARROW = Device("one data-centre GPU, 16 bits", 350e12, 3.5e12, 6e-6, 128, itemsize=2, kind="cuda")
"""Figures for unmeasured machines: `polyattn.calibrate` on two cores of a server's processor, rounded, and orders of
magnitude for the GPU, whose matrix units multiply 16-bit numbers many times faster."""

DEVICES = {"cpu": CPU, "cuda": CUDA}


def cost_function(model: str, device: Device) -> Callable[[Graph], float]:
    """Return a graph's cost in the model: seconds for "roofline", multiply-accumulates for "macs"."""
    if model == "macs":
        return lambda graph: _seconds(graph.macs, 1.0)
    return device.seconds


def _seconds(amount: int, rate: float) -> float:
    """Divide a count by a rate; infinite if no float holds the result, so that such steps still have an order."""
    try:
        return amount / rate
    except (OverflowError, ZeroDivisionError):
        return math.inf
