"""Facts of layers under DistributedDataParallel."""

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
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
    return Recorded(layer), torch.randn(SHAPE, generator=generator, dtype=torch.float64)


def loss(y: Tensor) -> Tensor:
    return y.sin().mean()


def train_half(rank: int, folder: str) -> None:
    """One of two processes: its half of the batch, and the averaged gradients that it ends up with."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    module, x = example()
    replica = DistributedDataParallel(module)
    for _ in range(2):  # DDP rebuilds its buckets after the first pass
        replica.zero_grad()
        loss(replica(x.chunk(2)[rank])).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    torch.save((module.made_by, gradients), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_up_with_the_gradients_of_the_joined_batch(tmp_path):
    multiprocessing.spawn(train_half, (str(tmp_path),), nprocs=2)
    module, x = example()
    loss(module(x)).backward()
    whole = {name: p.grad for name, p in module.named_parameters()}
    assert all(g.any() for g in whole.values())
    for rank in range(2):
        made_by, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert "PlannedLayer" in made_by
        torch.testing.assert_close(gradients, whole)
