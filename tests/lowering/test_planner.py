"""Facts of plans on this machine: calibrations are kept and checked, and measured plans are the fastest timed."""

import json
from dataclasses import replace

import pytest
import torch

from polyattn import SizeError, calibrate, catalog, plan
from polyattn.lowering import calibrated, einsums, measuring, planner, timing, training
from polyattn.lowering.einsums import einsum_graph
from polyattn.lowering.matching import as_choice
from polyattn.lowering.measuring import Measured
from polyattn.nn import Attention
from polyattn.planning import DEVICES, Device, question, ranked_plans
from polyattn.planning.costs import CUDA_NARROW
from polyattn.runtime import function, plan_cache

SIZES = {"B": 2, "N": 60, "C": 8}


def measured(name, device, dtype, seconds, noise=0.01) -> Measured:
    """Figures at once, which tell their dtype."""
    return Measured(Device(name, 1.5e11, 2.5e10, 4e-6, 12, dtype.itemsize, device), noise, 0.0, 24)


@pytest.fixture
def file(monkeypatch, tmp_path):
    """No calibration but those that the test makes."""
    monkeypatch.setenv("POLYATTN_DEVICES", str(tmp_path / "kept" / "devices.json"))
    monkeypatch.setattr(measuring, "measure", measured)
    return tmp_path / "kept" / "devices.json"


def test_a_calibration_is_kept_and_used(file):
    assert calibrated("cpu") == DEVICES["cpu"]
    found = calibrate("cpu", seconds=0.05)
    assert calibrated("cpu") == found != DEVICES["cpu"]
    (kept,) = json.loads(file.read_text()).values()
    assert kept.pop("noise") == 0.01
    assert Device(**kept) == found
    chosen = plan(catalog.nl(), SIZES)
    assert chosen == ranked_plans(question(catalog.nl(), SIZES, device=found), 1)[0]


def test_a_calibration_of_sixteen_bits_is_kept_beside_the_other(file):
    assert calibrated("cpu", "bfloat16") == calibrated("cpu") == DEVICES["cpu"]
    found = calibrate("cpu", dtype="bfloat16", seconds=0.05)
    assert (found.itemsize, found.kind) == (2, "cpu")
    assert calibrated("cpu", torch.bfloat16) == found != calibrated("cpu") == DEVICES["cpu"]
    assert calibrated("cpu", "float16") == DEVICES["cpu"]
    wide = calibrate("cpu", seconds=0.05)
    assert wide.itemsize == 4
    assert calibrated("cpu", "float64") == calibrated("cpu") == wide
    assert calibrated("cpu", "bfloat16") == found
    with pytest.raises(SizeError, match="unknown dtype 'int8'"):
        calibrate("cpu", dtype="int8")


def test_a_calibration_without_a_kind_is_of_the_device_that_is_asked_for(file, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    file.parent.mkdir()
    rates = {"name": "a GPU", "macs_per_second": 1e12, "bytes_per_second": 1e12, "step_seconds": 1e-6, "tile": 8}
    file.write_text(json.dumps({"a GPU": rates}))
    assert calibrated("cuda") == Device(**rates, kind="cuda")
    assert calibrated("cuda", "bfloat16") == CUDA_NARROW


def test_a_calibration_holds_for_its_processor_and_number_of_threads(file, monkeypatch):
    calibrate("cpu", seconds=0.05)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert calibrated("cpu") == DEVICES["cpu"]


@pytest.mark.parametrize("objective", ["forward", "training"])
def test_the_measured_plan_is_the_one_with_the_shortest_median(objective: str, monkeypatch):
    sizes = SIZES | {"N": 61 if objective == "forward" else 62}
    plans = ranked_plans(question(catalog.nl(), sizes, objective), planner.TIMED)
    near = [p for p in plans if question(catalog.nl(), sizes, objective).price(p) <= planner.WITHIN * 1e9]
    assert len(near) > 1
    monkeypatch.setattr(planner, "WITHIN", 1e9)
    monkeypatch.setattr(timing, "_medians", lambda calls, device: [1.0] * (len(calls) - 1) + [0.5])
    assert plan(catalog.nl(), sizes, objective, cost="measured") == plans[-1]


def test_candidates_are_really_run(monkeypatch):
    monkeypatch.setattr(timing, "SECONDS", 0.01)
    for objective in ("forward", "training"):
        found = plan(catalog.tesa(), {"B": 1, "H": 4, "W": 5, "C": 4, "R": 2}, objective, cost="measured")
        assert found.objective == objective
        assert (found.backward is None) == (objective == "forward")


def test_measuring_needs_a_device_that_is_here():
    with pytest.raises(SizeError, match="times candidates on a device"):
        plan(catalog.nl(), SIZES, cost="measured", device=DEVICES["cpu"])
    with pytest.raises(SizeError, match="unknown device 'abacus'"):
        calibrate("abacus")


def test_candidates_are_timed_as_layers_run_them_on_their_device(monkeypatch):
    """Where autograd's backward pass is taken, its graph is timed, lowered for the device that was asked about."""
    made = []

    def recorded(plan, **options):
        made.append((plan.objective, options))
        return training.differentiable(plan, **options)

    monkeypatch.setattr(timing, "SECONDS", 0.01)
    monkeypatch.setattr(timing, "differentiable", recorded)
    plan(catalog.nl(), SIZES | {"N": 63}, "training", cost="measured")
    assert len(made) > 1
    assert all(entry == ("training", {"kernels": (), "device": calibrated("cpu")}) for entry in made)


def test_a_layer_is_planned_again_once_the_machine_is_calibrated(file, monkeypatch):
    asked = []
    monkeypatch.setattr(function, "family_of", lambda *a: asked.append(calibrated("cpu")) or plan_cache.family_of(*a))
    layer, x = Attention("x[N,C]; y[a,b] = x[a,d]*w[d,b]", 3), torch.ones(2, 3, 5)
    for _ in range(2):
        layer(x)
    assert asked == [DEVICES["cpu"]]
    found = calibrate("cpu", seconds=0.05)
    for _ in range(2):
        layer(x)
    assert asked == [DEVICES["cpu"], found]


def test_kernels_and_einsums_follow_a_new_calibration(file, monkeypatch):
    """No calibration of an earlier time stays in a cache."""
    before = calibrated("cpu")
    monkeypatch.setattr("polyattn.lowering.matching.has_triton", lambda: True)
    slow = replace(DEVICES["cuda"], name="slow")
    monkeypatch.setattr("polyattn.lowering.matching.calibrated", lambda device: slow)
    assert as_choice("auto", "cuda") == slow != DEVICES["cuda"]
    asked = []
    monkeypatch.setattr(einsums, "einsum_graph", lambda *a: asked.append(a[3]) or einsum_graph(*a))
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    for _ in range(2):
        einsums.einsum("ij,jk->ik", a, b)
    found = calibrate("cpu", seconds=0.05)
    einsums.einsum("ij,jk->ik", a, b)
    assert asked == [before, found]
