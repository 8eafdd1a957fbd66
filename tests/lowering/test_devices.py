"""Facts of calibrations: whatever is in their file, plans are made; and what is measured gives the model's figures."""

import json
import os
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.lowering import calibrated, devices, measuring
from polyattn.lowering.measuring import Measured, measure, noise_of
from polyattn.planning import DEVICES, Device

HERE = Device("here", 1.5e11, 2.5e10, 4e-6, 12)


@pytest.fixture
def file(monkeypatch, tmp_path):
    """The file of calibrations, which is not there yet."""
    path = tmp_path / "kept" / "devices.json"
    path.parent.mkdir()
    monkeypatch.setenv("POLYATTN_DEVICES", str(path))
    monkeypatch.setattr(measuring, "measure", lambda *_: Measured(HERE, 0.01, 0.0, 24))
    return path


ENTRY = asdict(HERE)
DAMAGED = {
    "empty": b"",
    "cut": json.dumps({"a": ENTRY}).encode()[:-20],
    "random bytes": bytes(range(256)),
    "a list": b"[]",
    "a number": b"3",
    "deep brackets": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "an entry of text": b'{"a": "b"}',
    "an entry without rates": b'{"a": {"name": "a"}}',
    "null": b'{"a": null}',
    **{
        f"{name} {value}": json.dumps({"a": {**ENTRY, name: value}}).encode()
        for name in ("macs_per_second", "bytes_per_second", "step_seconds", "tile", "itemsize")
        for value in (0, -1, float("nan"), float("inf"), 10**400, 5e-324, "1e9")
    },
    **{f"tile {value}": json.dumps({"a": {**ENTRY, "tile": value}}).encode() for value in (None, True, [1], 1e300)},
    "a name of numbers": json.dumps({"a": {**ENTRY, "name": 3}}).encode(),
    "an unknown kind": json.dumps({"a": {**ENTRY, "kind": "abacus"}}).encode(),
    "a kind of lists": json.dumps({"a": {**ENTRY, "kind": [1]}}).encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_warns_once_and_calibrating_mends_it(file, name):
    file.write_bytes(DAMAGED[name])
    with pytest.warns(UserWarning, match=f"{file}: .*: run `polyattn calibrate`, or remove the file"):
        assert calibrated("cpu") == DEVICES["cpu"]
    devices._calibrated.cache_clear()
    devices._stored.cache_clear()
    assert calibrated("cpu") == DEVICES["cpu"]  # without another warning, which would be an error
    assert pa.calibrate("cpu") == HERE
    assert list(json.loads(file.read_text())) == [devices._key("cpu", "float32")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        devices._warned.clear()
        assert calibrated("cpu") == replace(HERE, kind="cpu")


def test_layers_plans_and_einsums_run_on_a_damaged_file(file):
    file.write_text("{")
    with pytest.warns(UserWarning, match="is no file of calibrations"):
        assert pa.plan(pa.catalog.nl(), {"B": 1, "N": 5, "C": 3}).macs
    assert pa.nn.Attention("x[N,C]; y[a,b] = x[a,d]*w[d,b]", 3)(torch.ones(2, 3, 5)).shape == (2, 3, 5)
    assert pa.einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)


def test_a_newer_version_s_entries_are_read_and_kept(file):
    newer = {**ENTRY, "name": "newer", "cache_bytes": [1, 2]}
    file.write_text(json.dumps({"elsewhere": newer, "nonsense": 1, devices._key("cpu", "float32"): newer}))
    with pytest.warns(UserWarning, match="the entry 'nonsense' is not a calibration"):
        assert calibrated("cpu") == replace(HERE, name="newer")
    pa.calibrate("cpu")
    kept = json.loads(file.read_text())
    assert kept["elsewhere"] == newer
    assert "nonsense" not in kept


@pytest.mark.parametrize("place", ["folder", "pipe", "unreadable", "huge"])
def test_what_is_not_a_readable_file_warns(file, place, monkeypatch):
    if place == "folder":
        file.mkdir()
    elif place == "pipe":
        os.mkfifo(file)
    elif place == "huge":
        file.write_text("{}")
        os.truncate(file, devices.LARGEST + 1)
    else:  # by a mock, since root may read anything
        file.write_text("{}")
        refused = PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(refused))
    with pytest.warns(UserWarning, match=str(file)):
        assert calibrated("cpu") == DEVICES["cpu"]


def test_what_cannot_be_kept_is_said_before_anything_is_measured(file, monkeypatch):
    monkeypatch.setattr(measuring, "measure", lambda *_: pytest.fail("measured"))
    file.mkdir()
    with pytest.raises(pa.PolyattnError, match=r"devices\.json: Is a directory; put that right"):
        pa.calibrate("cpu")
    monkeypatch.setenv("POLYATTN_DEVICES", "/proc/none/devices.json")
    with pytest.raises(pa.PolyattnError, match="cannot be kept in /proc/none"):
        pa.calibrate("cpu")


def test_a_measurement_that_is_too_noisy_is_not_kept(file, monkeypatch):
    pa.calibrate("cpu")
    before = file.read_text()
    monkeypatch.setattr(measuring, "measure", lambda *_: Measured(replace(HERE, tile=99), 0.8, 0.7, 12))
    with pytest.raises(pa.PolyattnError, match="12 rounds differ by 80%, and threads waited 70% of the time"):
        pa.calibrate("cpu")
    assert file.read_text() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@given(st.floats(1e9, 1e13), st.floats(1e9, 1e12), st.integers(1, 70), st.integers(1, 64))
def test_times_that_follow_the_model_give_its_figures(large, bandwidth, tile, threads):
    """Of each thread, the time of a product with the sides a, b, c is a*b*c / large * (1 + tile/a) * (1 + ...)."""
    work = measuring.Workloads.__new__(measuring.Workloads)
    work.kind, work.dtype, work.threads = "cpu", torch.float32, threads
    work.side, work.long, work.share, work.part = 320, 1536, max(1536 // threads, 16), 1 << 19

    def seconds(macs: float, *sides: int) -> float:
        for side in sides:
            macs *= 1 + tile / side
        return macs / large

    times = {"large": seconds(320**3, 320, 320, 320), "copy": 8 * work.part / bandwidth, "step": 5e-6 * 50}
    times |= {f"short {s}": seconds(s * 1536 * work.share, s, 1536, 1536) for s in (8, 16, 32, 64)}
    found = work.device("x", times)
    assert found.macs_per_second == pytest.approx(threads * large, rel=0.02)
    assert found.bytes_per_second == pytest.approx(threads * bandwidth)
    assert found.step_seconds == pytest.approx(5e-6)
    assert found.tile == pytest.approx(tile, abs=1)


def test_noise_is_the_difference_between_groups_of_rounds():
    quiet = [1.0] * 30
    assert noise_of({"a": [quiet, quiet]}) == 0
    assert noise_of({"a": [quiet], "b": [[1.0, 1.3, 2.0] * 10]}) == pytest.approx(1)
    assert noise_of({"a": [[1.0] * 27 + [9.0] * 3]}) == 0  # disturbed runs, in all groups


def test_measuring_ends_and_leaves_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(measuring, "SIDE", {"cpu": 32})
    monkeypatch.setattr(measuring, "LONG", {"cpu": 64})
    monkeypatch.setattr(measuring, "ENTRIES", {"cpu": (1 << 10, 1 << 12)})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measure("here", "cpu", torch.float32, 0.01)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found.rounds >= 6
    assert 0 <= found.waiting <= 1
    assert devices._fault(asdict(found.device)) == ""
