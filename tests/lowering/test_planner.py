"""Facts of plans on this machine: calibrations are kept and checked, and measured plans are the fastest timed."""

import json

import pytest

from polyattn import PolyattnError, SizeError, calibrate, catalog, plan
from polyattn.lowering import calibrated, devices, planner
from polyattn.planning import DEVICES, Device, question, ranked_plans

SIZES = {"B": 2, "N": 60, "C": 8}


@pytest.fixture
def file(monkeypatch, tmp_path):
    """No calibration but those that the test makes."""
    monkeypatch.setenv("POLYATTN_DEVICES", str(tmp_path / "kept" / "devices.json"))
    monkeypatch.setattr(devices, "SIDE", {"cpu": 128})
    return tmp_path / "kept" / "devices.json"


def test_a_calibration_is_kept_and_used(file):
    assert calibrated("cpu") == DEVICES["cpu"]
    found = calibrate("cpu", seconds=0.05)
    assert calibrated("cpu") == found != DEVICES["cpu"]
    (kept,) = json.loads(file.read_text()).values()
    assert Device(**kept) == found
    chosen = plan(catalog.nl(), SIZES)
    assert chosen == ranked_plans(question(catalog.nl(), SIZES, device=found), 1)[0]


def test_a_calibration_holds_for_its_processor_and_number_of_threads(file, monkeypatch):
    calibrate("cpu", seconds=0.05)
    monkeypatch.setattr(devices.torch, "get_num_threads", lambda: 77)
    assert calibrated("cpu") == DEVICES["cpu"]


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"name": "a"}}', '{"a": null}'])
def test_a_damaged_file_of_calibrations_is_named(file, text: str):
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(PolyattnError, match="is no file of calibrations"):
        calibrated("cpu")


def test_a_rate_that_is_no_positive_number_is_refused(file):
    file.parent.mkdir()
    rates = {"name": "a", "macs_per_second": 0, "bytes_per_second": 1e9, "step_seconds": 1e-6, "tile": 8}
    file.write_text(json.dumps({"a": rates}))
    with pytest.raises(PolyattnError, match="a rate that is no positive number for 'a'"):
        calibrated("cpu")


@pytest.mark.parametrize("objective", ["forward", "training"])
def test_the_measured_plan_is_the_one_with_the_shortest_median(objective: str, monkeypatch):
    sizes = SIZES | {"N": 61 if objective == "forward" else 62}
    plans = ranked_plans(question(catalog.nl(), sizes, objective), planner.TIMED)
    near = [p for p in plans if question(catalog.nl(), sizes, objective).price(p) <= planner.WITHIN * 1e9]
    assert len(near) > 1
    monkeypatch.setattr(planner, "WITHIN", 1e9)
    monkeypatch.setattr(planner, "_medians", lambda calls, device: [1.0] * (len(calls) - 1) + [0.5])
    assert plan(catalog.nl(), sizes, objective, cost="measured") == plans[-1]


def test_candidates_are_really_run(monkeypatch):
    monkeypatch.setattr(planner, "SECONDS", 0.01)
    for objective in ("forward", "training"):
        found = plan(catalog.tesa(), {"B": 1, "H": 4, "W": 5, "C": 4, "R": 2}, objective, cost="measured")
        assert found.objective == objective
        assert (found.backward is None) == (objective == "forward")


def test_measuring_needs_a_device_that_is_here():
    with pytest.raises(SizeError, match="times candidates on a device that is here"):
        plan(catalog.nl(), SIZES, cost="measured", device=DEVICES["cpu"])
    with pytest.raises(SizeError, match="unknown device 'abacus'"):
        calibrate("abacus")
