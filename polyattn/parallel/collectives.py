"""`Collectives`: shards on the devices of a mesh, with functional collectives of `torch.distributed`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.distributed._functional_collectives as functional
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from polyattn.runtime.communicator import Pieces


class Collectives(Pieces):
    """One shard per device of a mesh with one axis.

    The collectives are functional, so `torch.compile` and `CommDebugMode` see them.
    """

    deals = True

    def __init__(self, mesh: DeviceMesh, axis: int, counts: tuple[int, ...] = (), rest: int = 1):
        super().__init__(axis, counts, rest, mesh.get_local_rank())
        self.mesh = mesh

    def sum(self, value: Tensor) -> Tensor:
        return AllReduce.apply(value, self.mesh)

    def maximum(self, value: Tensor) -> Tensor:
        return reduced(value, "max", self.mesh)

    def to_channels(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return Deal.apply(x, self.mesh, (1, channels), (self.axis, self.counts))

    def to_rows(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return Deal.apply(x, self.mesh, (self.axis, self.counts), (1, channels))


class AllReduce(torch.autograd.Function):
    """The all-reduced sum over devices; the gradient of each summand is the all-reduced sum of gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, mesh: DeviceMesh) -> Tensor:
        ctx.mesh = mesh
        return reduced(value, "sum", mesh)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Every device uses the sum, so a summand's gradient collects those of all devices; `apply` keeps it
        # differentiable.
        return AllReduce.apply(gradients[0], ctx.mesh), None


class Deal(torch.autograd.Function):
    """An all-to-all from shards along one axis to shards along another.

    `cut` is the axis sharded afterwards, `joined` the axis sharded before, each with its lengths per device. Each
    device sends every other device its share of the shard.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mesh: DeviceMesh, cut: tuple[int, tuple[int, ...]], joined: tuple[int, tuple[int, ...]]
    ) -> Tensor:
        ctx.mesh, ctx.cut, ctx.joined = mesh, cut, joined
        (axis, parts), (along, lengths) = cut, joined
        shape = [parts[mesh.get_local_rank()] if a == axis else n for a, n in enumerate(x.shape)]
        shapes = [[length if a == along else n for a, n in enumerate(shape)] for length in lengths]
        # The collective sends flat contiguous buffers, so shares are flattened device by device.
        shares = [share.reshape(-1) for share in x.split(parts, axis)]
        sizes = [prod(s) for s in shapes]
        sent = functional.all_to_all_single(torch.cat(shares), sizes, [len(s) for s in shares], (mesh, 0))
        got = functional.wait_tensor(sent).split(sizes)
        # Shards come in rank order, which is their order along the joined axis.
        return torch.cat([flat.view(s) for flat, s in zip(got, shapes, strict=True)], along)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # An all-to-all permutes elements: its VJP is the all-to-all back.
        return Deal.apply(gradients[0], ctx.mesh, ctx.joined, ctx.cut), None, None, None


class Replicate(torch.autograd.Function):
    """Parameters unchanged; their gradients are all-reduced, in one collective per dtype."""

    @staticmethod
    def forward(ctx: Any, mesh: DeviceMesh, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.mesh = mesh
        return tuple(p.view_as(p) for p in parameters)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None] * len(gradients)
        wanted = [k for k in range(len(gradients)) if ctx.needs_input_grad[1 + k]]
        for dtype in dict.fromkeys(gradients[k].dtype for k in wanted):
            some = [k for k in wanted if gradients[k].dtype == dtype]
            # One large all-reduce instead of one per parameter: the latency is paid once.
            flat = torch.cat([gradients[k].reshape(-1) for k in some])
            parts = AllReduce.apply(flat, ctx.mesh).split([gradients[k].numel() for k in some])
            for k, part in zip(some, parts, strict=True):
                found[k] = part.view(gradients[k].shape)
        return None, *found


def reduced(value: Tensor, operation: str, mesh: DeviceMesh) -> Tensor:
    """Reduce a value to its sum or maximum over the devices of a mesh."""
    # Collectives read memory in storage order, so a non-contiguous value is copied first.
    made = functional.all_reduce(value.contiguous(), operation, (mesh, 0))
    return functional.wait_tensor(made)


def gathered(own: Sequence[int], mesh: DeviceMesh) -> list[list[int]]:
    """Gather the same count of numbers from every device, by an all-reduce of one row each."""
    every = torch.zeros(mesh.size(), len(own), dtype=torch.int64, device=mesh.device_type)
    every[mesh.get_local_rank()] = torch.tensor(own)
    return reduced(every, "sum", mesh).tolist()
