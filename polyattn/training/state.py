"""The contents of a checkpoint: names and tensors that do not depend on the number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from polyattn.training.averaging import Average


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None) -> dict[str, Any]:
    """Return the present state; tensors are the training's own, not copies.

    Args:
        model: the network, in DDP or sharded by FSDP2.
    """
    state = {"model": get_model_state_dict(model), "optimiser": get_optimizer_state_dict(model, optimiser)}
    if average is not None:
        state["average"] = dict(average.values)
    return state


def restore(state: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer, average: Average | None) -> None:
    """Restore the training from a state read before."""
    # torch's functions translate between whole and sharded tensors.
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimiser, state["optimiser"])
    if average is not None:
        with torch.no_grad():
            # Copied into the old tensors, to which the average's own dictionary refers.
            for name, value in average.values.items():
                value.copy_(state["average"][name])


def bytes_of(model: nn.Module, average: Average | None) -> int:
    """Estimate the bytes of a checkpoint, over all processes: parameters, momentum and average."""
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    return (2 + (average is not None)) * parameters + buffers


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return the network's own state dict on the CPU, gathered in the first process; {} in the others."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
