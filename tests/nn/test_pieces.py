"""What pieces of a map agree on, piece by piece in one process, against numpy on the whole map."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from polyattn.nn.norms import PieceBatchNorm
from polyattn.runtime.communicator import Pieces

COUNTS = (2, 0, 3)


class Meeting(Pieces):
    """One piece in a thread, which meets the others' at a barrier; gradients are left to autograd across threads."""

    def __init__(self, rank: int, barrier: threading.Barrier, box: list):
        super().__init__(2)
        self.rank, self.counts, self.barrier, self.box = rank, COUNTS, barrier, box

    def met(self, value: Tensor) -> Tensor:
        self.box[self.rank] = value
        self.barrier.wait(60)
        every = torch.stack(list(self.box))
        self.barrier.wait(60)
        return every

    def sum(self, value: Tensor) -> Tensor:
        return self.met(value).sum(0)

    def maximum(self, value: Tensor) -> Tensor:
        return self.met(value).detach().amax(0)


def pieces(x: Tensor, run: Callable[[Pieces, Tensor], Tensor]) -> list[Tensor]:
    """The results of all pieces of a map (B, C, rows)."""
    barrier, box = threading.Barrier(len(COUNTS)), [None] * len(COUNTS)
    cut = x.split(COUNTS, 2)

    def one(rank: int) -> Tensor:
        return run(Meeting(rank, barrier, box), cut[rank])

    with ThreadPoolExecutor(len(COUNTS)) as pool:
        return list(pool.map(one, range(len(COUNTS))))


def test_a_softmax_of_pieces_is_that_of_the_map_also_of_large_numbers():
    x = torch.randn(2, 3, 5, dtype=torch.float64) * 3 + torch.tensor([0.0, 0, 900, 1500, 1500]).double()
    array = x.numpy() - x.numpy().max(2, keepdims=True)
    expected = np.exp(array) / np.exp(array).sum(2, keepdims=True)
    found = torch.cat(pieces(x, lambda exchange, part: exchange.softmax(part, 2)), 2)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_the_gradient_of_a_maximum_goes_to_the_largest_entries_of_all_pieces_in_equal_parts():
    x = torch.tensor([[[1.0, 5.0, 5.0, 2.0, 5.0], [9.0, 0.0, 3.0, 3.0, 4.0]]], requires_grad=True)
    top, *others = pieces(x, lambda exchange, part: exchange.amax(part, 2))
    assert top.tolist() == [[5.0, 9.0]]
    assert all(torch.equal(top, other) for other in others)
    top.sum().backward()
    third = pytest.approx(1 / 3)
    assert x.grad is not None
    assert x.grad.tolist() == [[[0, third, third, 0, third], [1, 0, 0, 0, 0]]]


def test_a_batch_norm_of_pieces_has_the_mean_and_the_variance_of_the_map():
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    norms = [PieceBatchNorm(3).double() for _ in COUNTS]

    def run(exchange: Pieces, part: Tensor) -> Tensor:
        norm = norms[exchange.rank]
        norm.exchange = exchange
        return norm(part)

    found = torch.cat(pieces(x, run), 2)
    array = x.numpy()
    mean, variance = array.mean((0, 2)), array.var((0, 2))
    expected = (array - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    torch.testing.assert_close(found, torch.from_numpy(expected))
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, torch.from_numpy(0.1 * mean))
        torch.testing.assert_close(norm.running_var, torch.from_numpy(0.9 + 0.1 * array.var((0, 2), ddof=1)))
