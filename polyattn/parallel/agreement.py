"""`agreed`: processes that are about to run a layer on their pieces find out first whether they do the same.

Collectives do not check it: where one process gives other sizes than another, or another number of collectives, it
waits forever, aborts, or gets a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from polyattn.errors import PolyattnError, ShardingError
from polyattn.parallel.collectives import gathered


def agreed(
    x: Tensor,
    module: nn.Module,
    counts: tuple[int, ...] | None,
    dim: int,
    mesh: DeviceMesh,
    fault: PolyattnError | None,
) -> tuple[int, ...]:
    """Return how many rows each process has, or raise an error on every process if they do not do the same.

    One all-reduce of a few numbers for each process, of the same size whatever they are called with.

    Args:
        x: this process's piece.
        module: the layer.
        counts: as they were passed to this process.
        dim: the axis that is spread.
        fault: the error that this process has found by itself; raised here, after the others know of it.

    Raises:
        ShardingError: the processes differ in something named, or another one has an error of its own.
    """
    terms = _terms(x, module, counts, dim, mesh.device_type)
    rows = x.shape[dim] if x.dim() > dim else 0
    own = [int(fault is not None), rows, *(crc32(repr(term).encode()) for term in terms.values())]
    faults, lengths, *others = zip(*gathered(own, mesh), strict=True)
    if fault is not None:
        raise fault
    if any(faults):
        raise ShardingError(f"process {_listed(r for r, f in enumerate(faults) if f)} has refused its piece of the map")
    for (name, term), codes in zip(terms.items(), others, strict=True):
        rank = mesh.get_local_rank()
        unlike = [r for r, code in enumerate(codes) if code != codes[rank]]
        if unlike:
            raise ShardingError(
                f"{name} must be the same on all processes: it is {term} on process {rank}, but not on process"
                f" {_listed(unlike)}"
            )
    return lengths


def _terms(x: Tensor, module: nn.Module, counts: tuple[int, ...] | None, dim: int, device: str) -> dict[str, object]:
    """The values on which the exchanges of a call depend, besides the number of rows."""
    training = [name for name, part in module.named_modules() if part.training]
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else "off"
    return {
        f"`x.shape` but for axis {dim}": (*x.shape[:dim], *x.shape[dim + 1 :]),
        "`x.dtype`": x.dtype,
        "`x.requires_grad`": x.requires_grad,
        "`torch.is_grad_enabled()`": torch.is_grad_enabled(),
        "the layer's mode": _which(training, sum(1 for _ in module.modules()), "training", "evaluation"),
        "`requires_grad` of the parameters": _which(trained, sum(1 for _ in module.parameters()), "True", "False"),
        "autocast's dtype": autocast,
        "`counts`": counts,
    }


def _which(names: list[str], total: int, every: str, none: str) -> str:
    if len(names) == total:
        return every
    return f"{every} for {', '.join(name or '(the layer)' for name in names)}" if names else none


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
