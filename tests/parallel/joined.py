"""Gradients of layers under DistributedDataParallel, against those of the joined batch in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from polyattn import catalog
from polyattn.nn import Attention

SHAPE = (8, 6, 40, 40)
"""Of the joined batch: so many positions that the planned backward pass takes less arithmetic than autograd's."""


class Recorded(nn.Module):
    """A layer that remembers which operation made its output."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.made_by = layer, ""

    def forward(self, x: Tensor) -> Tensor:
        attended = self.layer.attend(x)
        node = attended.grad_fn
        while node is not None and "PlannedLayer" not in type(node).__name__:
            node = node.next_functions[0][0] if node.next_functions else None
        self.made_by = type(node).__name__
        return self.layer.alpha * x + self.layer.beta * attended


def example() -> tuple[Recorded, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layer = Attention(catalog.poly_nl(), SHAPE[1], beta=0.7, generator=generator, dtype=torch.float64)
    return Recorded(layer), torch.randn(SHAPE, generator=generator, dtype=torch.float64, requires_grad=True)


def loss(y: Tensor) -> Tensor:
    return y.sin().mean()


def joined_batch(mesh: DeviceMesh) -> Iterator[dict[str, Any]]:
    """In each of two processes: its half of the batch, and the averaged gradients that it ends up with."""
    if mesh.size() > 2:
        return
    module, x = example()
    replica = DistributedDataParallel(module)
    for _ in range(2):  # DDP rebuilds its buckets after the first pass
        replica.zero_grad()
        loss(replica(x.chunk(2)[mesh.get_local_rank()])).backward()
    found = [p.grad for p in module.parameters()]
    alone, x = example()
    wanted = torch.autograd.grad(loss(alone(x)), tuple(alone.parameters()))
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))
    each: list[Any] = [None] * mesh.size()
    torch.distributed.all_gather_object(each, (apart, module.made_by))
    yield {"apart": [a for a, _ in each], "made_by": [name for _, name in each]}
