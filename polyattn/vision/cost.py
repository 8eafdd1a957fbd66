"""`cost`: parameters and multiply-accumulates of a network with inserted attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from polyattn.runtime.counting import flop_counter
from polyattn.vision.insert import CHILD, inserted
from polyattn.vision.trace import Example, arguments_of, run


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates (1 MAC is 2 FLOPs) of a network, and the inserted attention's share.

    Attributes:
        parameters: parameters of the whole network.
        parameters_added: parameters of the inserted attention.
        macs: multiply-accumulates of one run of the whole network.
        macs_added: multiply-accumulates of the inserted attention in that run.
    """

    parameters: int
    parameters_added: int
    macs: int
    macs_added: int

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters, {self.parameters_added:,} of them added; "
            f"{self.macs:,} MACs, {self.macs_added:,} of them added"
        )


def cost(model: nn.Module, example_input: Example | None = None) -> Cost:
    """Count a network's parameters and the multiply-accumulates of one run in eval mode.

    MACs are half of the FLOPs of `torch.utils.flop_counter.FlopCounterMode`: those of matrix products, convolutions and
    fused softmax attention. It skips elementwise operations and sums, hence biases, norms, activations and the Hadamard
    products of a specification, unlike a plan's `macs`; and it skips kernels outside torch.

    Args:
        model: the network, with or without inserted attention.
        example_input: example as in `insert`; the MACs are those of its batch.
    """
    # A set: one module may be inserted in several places, but needs one hook.
    attentions = {target.get_submodule(CHILD) for target in inserted(model).values()}
    # A stack: inserted attention may contain inserted attention.
    running: list[int] = []
    added = 0
    counter = flop_counter()

    def enter(_: nn.Module, *arguments: Any) -> None:
        running.append(counter.get_total_flops())

    def leave(_: nn.Module, *arguments: Any) -> None:
        nonlocal added
        before = running.pop()
        if not running:  # attention nested in inserted attention counts once, with it
            added += counter.get_total_flops() - before

    handles = [attention.register_forward_pre_hook(enter) for attention in attentions]
    try:
        with counter:
            run(model, *arguments_of(model, example_input), hooks=dict.fromkeys(attentions, leave))
    finally:
        for handle in handles:
            handle.remove()
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        # A dictionary by parameter: weights shared between attentions count once.
        parameters_added=sum({p: p.numel() for a in attentions for p in a.parameters()}.values()),
        macs=counter.get_total_flops() // 2,
        macs_added=added // 2,
    )
