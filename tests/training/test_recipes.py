"""Each recipe trains on a tiny set in the true form and evaluates; one, and nightly all, is killed and goes on."""

import importlib
from pathlib import Path

import pytest
import torch

from polyattn.training.data import tiny
from tests.drawing import mostly_nightly
from tests.training.launching import Killed, together
from tests.training.toy import curve, weights

RECIPES = {
    "train_imagenet": (tiny.image_folder, {"top1", "top5"}),
    "train_detection": (tiny.coco, {"box_AP", "mask_AP", "box_AP50", "mask_AP75"}),
    "train_faces": (tiny.wider, {"AP_easy", "AP_medium", "AP_hard", "AP_all"}),
    "train_video": (tiny.clips, {"top1", "top5"}),
}


def run(name: str, data: Path, out: Path):
    torch.set_num_threads(1)
    recipe = importlib.import_module(f"examples.{name}")
    trained = recipe.main(["tiny", "--data", str(data), "--out", str(out)])
    return trained.resumed, trained.steps, trained.losses, trained.figures


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "train_detection"])
def test_a_recipe_trains_and_evaluates(name, tmp_path):
    make, figures = RECIPES[name]
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make(data)
    [result] = together(1, run, name, data, out)
    assert_it_trained(result, figures, out)
    assert result[0] == 0


@pytest.mark.parametrize("name", mostly_nightly(RECIPES, ("train_detection",)))
def test_a_recipe_is_killed_after_its_first_step_goes_on_and_evaluates(name, tmp_path):
    make, figures = RECIPES[name]
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make(data)
    first = out / "step-000000001"
    [killed] = together(1, run, name, data, out, kill_when=first.exists)
    assert isinstance(killed, Killed)
    [result] = together(1, run, name, data, out)
    assert_it_trained(result, figures, out)
    assert result[0] >= 1


def assert_it_trained(result, figures, out):
    assert not isinstance(result, BaseException), result
    resumed, steps, losses, found = result
    assert resumed <= steps == 2
    assert resumed == 2 or losses["loss"] > 0
    assert figures <= found.keys()
    assert all(-1 <= value <= 1 for value in found.values())
    assert [row["step"] for row in curve(out)] == [1, 2]
    [evaluation] = curve(out, "evaluations.csv")
    assert evaluation["step"] == 2
    assert all(torch.isfinite(value).all() for value in weights(out).values())


def test_two_processes_evaluate_as_one(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    tiny.image_folder(data)
    [(_, _, _, alone)] = together(1, run, "train_imagenet", data, out)
    (out / "evaluations.csv").unlink()
    both = together(2, run, "train_imagenet", data, out)  # nothing is left to train
    assert [(resumed, losses) for resumed, _, losses, _ in both] == [(2, {}), (2, {})]
    assert [figures for *_, figures in both] == [pytest.approx(alone)] * 2
