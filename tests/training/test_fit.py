"""What a training gives does not depend on how many processes share it, or on how often they are killed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from polyattn.errors import TrainingError
from polyattn.training.processes import Processes
from polyattn.training.wrapping import _channels_last, wrapped
from tests.training.launching import Killed, together
from tests.training.toy import SETTINGS, Toy, curve, train, weights

LAST = 6  # steps: 30 samples, batches of 12, 3 epochs


def state(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that the last checkpoint holds, whatever wrote it."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    target = folder / "all.pt"
    dcp_to_torch_save(folder / f"step-{LAST:09d}", target)
    return flat(torch.load(target))


def flat(tree: dict, prefix: str = "") -> dict[str, torch.Tensor]:
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + str(key): value}
    return found


def equal(one: dict, other: dict) -> bool:
    """To the bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one if "param_groups" not in k)


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    [(resumed, losses, figures)] = together(1, train, replace(SETTINGS, out=folder))
    assert (resumed, figures["seen"]) == (0, 30)
    assert losses["loss"] == losses["cross_entropy"] > 0
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    results = together(2, train, replace(SETTINGS, out=folder))
    assert results[0] == results[1]
    return folder


def agree(one: Path, other: Path, rtol: float) -> None:
    for name in ("steps.csv", "evaluations.csv"):
        wanted = {row["step"] for row in curve(one, name)}  # the other one may have stopped, and evaluated, in between
        rows = list(zip(curve(one, name), (r for r in curve(other, name) if r["step"] in wanted), strict=True))
        assert rows
        for mine, theirs in rows:
            assert mine == pytest.approx(theirs, rel=rtol)
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(other)[name], value, rtol=rtol, atol=1e-6)


def test_two_processes_have_the_loss_curve_and_the_weights_of_one(single, pair):
    agree(single, pair, rtol=2e-5)


def test_the_weights_at_the_end_are_the_averaged_ones(single):
    last = state(single)
    for name, value in weights(single).items():
        assert torch.equal(value, last.get(f"average.{name}", last[f"model.{name}"]))
    assert not torch.equal(last["average.3.weight"], last["model.3.weight"])


def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(pair, tmp_path):
    folder = tmp_path / "killed"
    settings = replace(SETTINGS, out=folder)
    assert all(
        isinstance(r, Killed)
        for r in together(2, train, settings, kill_when=(folder / "step-000000002" / "manifest.json").exists)
    )
    assert not (folder / "weights.pt").exists()
    resumed = {result[0] for result in together(2, train, settings)}
    assert resumed <= set(range(2, LAST))
    assert len(resumed) == 1
    assert equal(state(folder), state(pair))
    assert curve(folder) == curve(pair)


@pytest.mark.parametrize(
    ("first", "second", "parallel"),
    [(2, 3, "ddp"), (1, 2, "fsdp"), pytest.param(2, 1, "fsdp", marks=pytest.mark.nightly)],
)
def test_a_training_goes_on_with_another_number_of_processes(single, tmp_path, first, second, parallel):
    settings = replace(SETTINGS, out=tmp_path, parallel=parallel)
    together(first, train, replace(settings, steps=3))
    results = together(second, train, settings)
    assert [r[0] for r in results] == [3] * second
    agree(single, tmp_path, rtol=5e-5)


def _elastic(settings, task) -> int:
    """torchrun's own agent, with workers that are forked: their imports are done."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="toy", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=2, start_method="fork", monitor_interval=0.05,
    )  # fmt: skip
    return elastic_launch(config, train)(settings, task)[0][0]


def test_torchrun_restarts_a_killed_worker_and_the_weights_keep_their_bits(pair, tmp_path):
    task = Toy(kill_rank=1, kill_step=11, marker=tmp_path / "killed")  # 3 passes a step: in the middle of the fourth
    [resumed] = together(1, _elastic, replace(SETTINGS, out=tmp_path), task)
    assert not isinstance(resumed, BaseException), resumed
    assert (tmp_path / "killed").exists()
    assert resumed == 3
    assert equal(state(tmp_path), state(pair))


def test_a_folder_of_another_training_is_refused(single):
    [error] = together(1, train, replace(SETTINGS, out=single, batch=10))
    assert isinstance(error, TrainingError)
    assert "batch was 12 and is 10" in str(error)


def test_more_processes_than_forward_passes_are_refused():
    for error in together(2, train, replace(SETTINGS, micro=12)):
        assert isinstance(error, TrainingError)
        assert "1 forward passes, but 2 processes" in str(error)


def test_scalars_which_fsdp2_does_not_shard_are_refused_by_name():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(1.0))

    class Scalar(Toy):
        def network(self):
            return torch.nn.Sequential(Scaled())

    with pytest.raises(TrainingError, match=r"scalars, and the network has 0\.scale: train it with"):
        wrapped(Scalar(), replace(SETTINGS, parallel="fsdp"), Processes(0, 1, torch.device("cpu")))


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize(("kind", "layout"), [("Conv2d", torch.channels_last), ("Conv3d", torch.channels_last_3d)])
def test_kernels_lie_in_memory_as_their_gradients_do(kind, layout, side):
    layer = getattr(torch.nn, kind)(4, 6, side)
    _channels_last(layer)
    x = torch.randn(2, 4, *[5] * (layer.weight.dim() - 2)).contiguous(memory_format=layout)
    layer(x).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()
    assert layer.weight.is_contiguous(memory_format=layout)
