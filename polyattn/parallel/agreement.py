"""`agreed`: a check, before a layer runs on shards, that all processes make the same call.

Collectives do not check this: if the sizes or the numbers of collectives differ between processes, they wait forever,
abort, or compute a wrong result.
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
    """Check that all processes make the same call, and return the number of rows of each.

    If they differ, every process raises an error. The check is one all-reduce of a few numbers per process, of the same
    size for all arguments.

    Args:
        x: shard of this process.
        module: the layer.
        counts: number of rows per process, as passed to this process.
        dim: the sharded axis.
        fault: error found by this process; raised here, after the other processes know of it.

    Raises:
        ShardingError: the processes differ in a named value, or another process has found an error.
    """
    terms = _terms(x, module, counts, dim, mesh.device_type)
    rows = x.shape[dim] if x.dim() > dim else 0
    # A checksum keeps the all-reduce at a fixed size; values of any length are compared by their codes.
    own = [int(fault is not None), rows, *(crc32(repr(term).encode()) for term in terms.values())]
    faults, lengths, *others = zip(*gathered(own, mesh), strict=True)
    # A faulty process joins the all-reduce before it raises: otherwise the others would wait for it.
    if fault is not None:
        raise fault
    if any(faults):
        raise ShardingError(f"process {_listed(r for r, f in enumerate(faults) if f)} has refused its piece of the map")
    for (name, term), codes in zip(terms.items(), others, strict=True):
        rank = mesh.get_local_rank()
        # Each process compares the codes with its own, so its error can print its own value.
        unlike = [r for r, code in enumerate(codes) if code != codes[rank]]
        if unlike:
            raise ShardingError(
                f"{name} must be the same on all processes: it is {term} on process {rank}, but not on process"
                f" {_listed(unlike)}"
            )
    return lengths


def _terms(x: Tensor, module: nn.Module, counts: tuple[int, ...] | None, dim: int, device: str) -> dict[str, object]:
    """Return the values, besides the number of rows, on which the communication of a call depends."""
    training = [name for name, part in module.named_modules() if part.training]
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    # The dtype of a reduced value follows autocast, and an all-reduce of different dtypes fails or is wrong.
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
