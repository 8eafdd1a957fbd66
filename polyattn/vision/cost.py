"""`cost`: parameters and multiply-accumulates of a network with inserted attention."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from polyattn.runtime.counting import flop_counter
from polyattn.vision.insert import CHILD, inserted
from polyattn.vision.trace import Example, arguments_of, run


@dataclass(frozen=True)
class ModuleCost:
    """A module's own row: its parameters and multiply-accumulates, with those of its submodules.

    Attributes:
        name: its name in the network, "" for all of it.
        kind: the name of its class.
        parameters: number of its parameters.
        macs, backward_macs: multiply-accumulates of one run, and of its backward pass, if counted.
    """

    name: str
    kind: str
    parameters: int
    macs: int
    backward_macs: int = 0


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates (1 MAC is 2 FLOPs) of a network, and the inserted attention's share.

    Attributes:
        parameters: parameters of the whole network.
        parameters_added: parameters of the inserted attention.
        macs: multiply-accumulates of one run of the whole network.
        macs_added: multiply-accumulates of the inserted attention in that run.
        backward_macs: multiply-accumulates of the backward pass, for parameters and inputs; 0 if it was not counted.
        modules: a row for each module that was called, in the order of the network.
    """

    parameters: int
    parameters_added: int
    macs: int
    macs_added: int
    backward_macs: int = 0
    modules: tuple[ModuleCost, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return a dictionary for each module that was called: the columns of a table."""
        return [asdict(m) for m in self.modules]

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters, {self.parameters_added:,} of them added; "
            f"{self.macs:,} MACs, {self.macs_added:,} of them added"
        )


def cost(model: nn.Module, example_input: Example | None = None, *, backward: bool = False) -> Cost:
    """Count a network's parameters and the multiply-accumulates of one run in eval mode, whole and by module.

    MACs are half of the FLOPs of `torch.utils.flop_counter.FlopCounterMode`: those of matrix products, convolutions and
    fused softmax attention. It skips elementwise operations and sums, hence biases, norms, activations and the Hadamard
    products of a specification, unlike a plan's `macs`; and it skips kernels outside torch.

    Args:
        model: the network, with or without inserted attention.
        example_input: example as in `insert`; the MACs are those of its batch.
        backward: whether the backward pass is counted, too, in a second run; hooks for it see the modules one by one.
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
    counts = _by_module(counter)
    after: dict[str, int] = {}
    if backward:
        whole = flop_counter()
        with whole:
            _both(model, arguments_of(model, example_input))
        after = _with_parents({name: n - counts.get(name, 0) for name, n in _by_module(whole).items()})
    return Cost(
        parameters=sum(p.numel() for p in model.parameters()),
        # A dictionary by parameter: weights shared between attentions count once.
        parameters_added=sum({p: p.numel() for a in attentions for p in a.parameters()}.values()),
        macs=counter.get_total_flops() // 2,
        macs_added=added // 2,
        backward_macs=after.get("", 0),
        modules=tuple(
            ModuleCost(name, type(m).__name__, sum(p.numel() for p in m.parameters()), counts[name], after.get(name, 0))
            for name, m in model.named_modules()
            if name in counts
        ),
    )


def _by_module(counter: FlopCounterMode) -> dict[str, int]:
    """Return the multiply-accumulates of each module that the counter saw, by name; "" is all of it."""
    found = {"": counter.get_total_flops() // 2}
    for name, flops in counter.get_flop_counts().items():
        # Torch's names begin with the class of the network.
        found.setdefault(name.partition(".")[2], sum(flops.values()) // 2)
    return found


def _with_parents(counts: dict[str, int]) -> dict[str, int]:
    """Return the counts, each at least the sum of its direct submodules': torch may leave a backward pass out there."""
    found = dict(counts)
    for name in sorted(counts, key=lambda n: -n.count(".")):
        inside = [n for n in found if n and name and n.rpartition(".")[0] == name]
        found[name] = max(found[name], sum(found[n] for n in inside))
    return found


def _both(model: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Run the model and its backward pass, for parameters and floating-point inputs; no gradient is kept."""
    with torch.enable_grad():
        given = [a.detach().requires_grad_() if _is_float(a) else a for a in arguments]
        state = {name: p.detach().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
        outputs = run(model, *given, state=state, gradients=True)
        wanted = [t for t in tree_leaves(outputs) if isinstance(t, torch.Tensor) and t.requires_grad]
        if wanted:
            # The gradients are those of the detached copies, which end here.
            torch.autograd.backward(wanted, [torch.ones_like(t) for t in wanted])


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
