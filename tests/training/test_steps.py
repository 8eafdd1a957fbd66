"""One step of training against numbers worked out by hand, with micro-batches of 2, 2 and 1 samples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polyattn.training import Draw, Settings
from polyattn.training.averaging import Average
from polyattn.training.order import Micro
from polyattn.training.processes import Processes
from polyattn.training.steps import Stepper

SAMPLES = [1.0, 2.0, 4.0, 8.0, 16.0]
CUTS = [(0, 1), (2, 3), (4,)]


class Network(nn.Module):
    """A weight, and a running mean as batch norms have it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("mean", torch.tensor(10.0))
        self.register_buffer("counter", torch.tensor(7))
        self.drawn: list[float] = []

    def set_requires_gradient_sync(self, exchange: bool) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.drawn.append(torch.rand(()).item())
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean())
            self.counter.add_(1)
        return self.weight * x


class Task:
    def loss(self, model: nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"output": model(batch).mean()}


def stepped(numbers: range, step: int = 0) -> tuple[Network, dict[str, float]]:
    """The network after a step on some of the micro-batches, by plain gradient descent at rate 0.5."""
    network = Network()
    settings = Settings(batch=5, micro=2, momentum=0.0, weight_decay=0.0)
    micros = [Micro(step, n, tuple(Draw(0, i) for i in CUTS[n])) for n in numbers]
    stepper = Stepper(
        Task(), network, torch.optim.SGD([network.weight], 0.0), settings, Processes(0, 1, torch.device("cpu"))
    )
    batches = iter([torch.tensor([SAMPLES[i] for i in CUTS[n]]) for n in numbers])
    return network, stepper.step(micros, batches, 0.5, 3)


def test_the_gradient_and_the_loss_are_those_of_the_mean_over_the_batch():
    network, losses = stepped(range(3))
    mean = sum(SAMPLES) / 5  # d(weight * x)/d weight
    assert network.weight.item() == pytest.approx(3 - 0.5 * mean)
    assert losses == {"loss": pytest.approx(3 * mean), "output": pytest.approx(3 * mean)}


def test_running_values_are_the_mean_of_what_each_micro_batch_makes_of_those_before():
    network, _ = stepped(range(3))
    means = [1.5, 6.0, 16.0]
    assert network.mean.item() == pytest.approx(sum(0.9 * 10 + 0.1 * m for m in means) / 3)
    assert network.counter.item() == 8


def test_each_forward_pass_draws_numbers_of_its_own_whatever_came_before():
    whole = stepped(range(3))[0].drawn
    assert len(set(whole)) == 3
    assert stepped(range(1, 3))[0].drawn == whole[1:]
    assert not set(stepped(range(3), step=1)[0].drawn) & set(whole)


def test_an_average_moves_by_what_its_decay_leaves_and_is_evaluated_in_place():
    network = Network()
    average = Average(network, 0.75)
    with torch.no_grad():
        network.weight.fill_(7.0)
    average.update()
    assert average.values["weight"].item() == pytest.approx(0.75 * 3 + 0.25 * 7)
    with average.in_place():
        assert network.weight.item() == pytest.approx(4.0)
    assert network.weight.item() == 7.0
