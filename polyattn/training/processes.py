"""The processes of a training: those started by torchrun, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from polyattn.errors import TrainingError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank, count: its number, from 0, and the number of processes.
        device: its device.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Test if this is the process that writes and prints."""
        return self.rank == 0

    def on_first(self, function: Callable[[], Value]) -> Value:
        """Call a function in the first process only; all return its result, or raise its exception."""
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = function()
            # Sent to the others, which would otherwise wait for a result.
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def gathered(self, value: Value) -> list[Value]:
        """Gather the values of all processes, in all of them."""
        box: list[Any] = [None] * self.count
        dist.all_gather_object(box, value)
        return box

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor


@contextmanager
def started(device: str = "auto", environ: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Join the processes started by torchrun; without torchrun, or a similar launcher, this one is alone.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        environ: torchrun's variables.

    Raises:
        TrainingError: "cuda" on a machine without a GPU, or with fewer GPUs than processes.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    # RANK counts over all machines, LOCAL_RANK over the GPUs of this one.
    local = int(environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise TrainingError(
            f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; start fewer "
            f"processes, or choose the device cpu"
        )
    place = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    # gloo for objects and tensors on the CPU, nccl for gradients.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in environ and "WORLD_SIZE" in environ:
        store, rank, count = next(rendezvous("env://"))
        # torchrun's store outlives a restart of its workers, with the addresses of those that are dead.
        store = dist.PrefixStore(f"restart-{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
        # A process that ends at once, with an error, would break the connections that others are still making, whose
        # error would then be of the network.
        dist.all_reduce(torch.zeros(1))
    else:
        # A group of one lets the same code run without a launcher.
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()
