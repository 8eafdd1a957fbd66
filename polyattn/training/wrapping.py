"""A network in DDP or FSDP2."""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from polyattn.errors import TrainingError
from polyattn.training.processes import Processes
from polyattn.training.settings import Settings
from polyattn.training.task import Task, seeded_network


def wrapped(task: Task, settings: Settings, processes: Processes) -> nn.Module:
    """Wrap the task's network on this process's device for training together with the other processes.

    Buffers, such as the running values of batch norms, are whole in each process and left to the `Stepper`.
    """
    model = seeded_network(task, settings.seed).to(processes.device)
    if settings.channels_last and settings.parallel == "ddp":  # FSDP2 shards kernels only as they are by default
        for module in model.modules():
            _channels_last(module)
    if settings.parallel == "fsdp":
        scalars = [name for name, parameter in model.named_parameters() if parameter.dim() == 0]
        if scalars:
            raise TrainingError(
                f'FSDP2 shards no scalars, and the network has {", ".join(scalars)}: train it with parallel="ddp"'
            )
        mesh = init_device_mesh(processes.device.type, (processes.count,))
        # Parts first: the outermost call shards the parameters that are left.
        for part in task.sharded(model):
            fully_shard(part, mesh=mesh)
        return cast(nn.Module, fully_shard(model, mesh=mesh))
    # torch 2.6 has only the first word, and later versions warn of it.
    known = signature(nn.parallel.DistributedDataParallel).parameters
    word = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    words: dict[str, Any] = {word: False}
    return nn.parallel.DistributedDataParallel(model, **words)


def own(model: nn.Module) -> nn.Module:
    """Return the network inside DDP; with FSDP2 it is the network itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def freed(model: nn.Module) -> None:
    """Release parameters that FSDP2 keeps gathered after a forward pass alone, since they would miss updates."""
    for module in model.modules():
        # Without a backward pass FSDP2 has no point at which to release them itself.
        if isinstance(module, FSDPModule):
            module.reshard()


@torch.no_grad()
def _channels_last(module: nn.Module) -> None:
    """Store kernels of 2D and 3D convolutions with their channels last; leave all other parameters."""
    formats: dict[int, Any] = {4: torch.channels_last, 5: torch.channels_last_3d}
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Conv2d | nn.Conv3d) and isinstance(weight, torch.Tensor):
        # Kernels lie as their gradients will, which is what DDP asks for. Of one pixel, where both orders are the same
        # but for their strides, those of 3D kernels are the plain ones.
        if weight.dim() == 5 and weight[0, 0].numel() == 1:
            return
        weight.data = torch.empty_like(weight, memory_format=formats[weight.dim()]).copy_(weight.data)
