"""What the roofline needs to know of a device, measured once and kept.

`calibrate` times a large matrix product, products with one short side, a copy and an operation on almost nothing.
The result is kept in a JSON file, one entry for each device and number of threads, that can be copied to machines of
the same kind: POLYATTN_DEVICES names the file, and else it lies in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from polyattn.errors import PolyattnError, SizeError
from polyattn.planning import DEVICES, Device

SIDE = {"cpu": 1536, "cuda": 8192}
"""Of the large matrix product; the copy is of as many entries as a few such matrices."""
SHORT = (8, 16, 32, 64)
"""Sides at which the fall of the rate is measured."""


def kind(device: str) -> str:
    """The device that plans are made for where tensors are on a torch device of this type: "cpu" if it is unknown."""
    return device if device in DEVICES else "cpu"


def calibrated(device: str = "cpu") -> Device:
    """This machine's calibration if there is one, else the figures that polyattn ships.

    Raises:
        SizeError: a device that polyattn knows nothing of.
        PolyattnError: the file of calibrations cannot be read; its path is in the message.
    """
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}, or give a Device")
    return _calibrated(device, torch.get_num_threads(), os.environ.get("POLYATTN_DEVICES"))


_measured = 0


def version() -> tuple[int, int]:
    """What may change which calibration holds, at the little cost that a layer can pay in every call.

    The environment is not asked: a file that POLYATTN_DEVICES names later holds for plans that are made later.
    """
    return torch.get_num_threads(), _measured


@cache
def _calibrated(device: str, threads: int, file: str | None) -> Device:
    if device == "cuda" and not torch.cuda.is_available():
        return DEVICES[device]  # planned for another machine
    return _stored(path()).get(_key(device), DEVICES[device])


def calibrate(device: str = "cpu", *, seconds: float = 4.0) -> Device:
    """Measure this machine and keep the result for `calibrated`.

    Args:
        device: "cpu" or "cuda".
        seconds: about how long it may take.

    Returns:
        Rates in multiply-accumulates and bytes a second, and seconds a step.

    Raises:
        SizeError: an unknown device, or "cuda" where there is none.
        PolyattnError: the file cannot be written.
    """
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise SizeError("there is no CUDA device to calibrate")
    with torch.no_grad():
        found = _measure(device, seconds / (3 + len(SHORT)))
    where = path()
    everything = {key: asdict(value) for key, value in {**_stored(where), _key(device): found}.items()}
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=where.parent, suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump(everything, file, indent=1)
        os.replace(name, where)
    except OSError as error:
        raise PolyattnError(f"the calibration could not be kept in {where}: {error}") from error
    global _measured
    _measured += 1
    _stored.cache_clear()
    _calibrated.cache_clear()
    return found


def path() -> Path:
    """The file of calibrations."""
    given = os.environ.get("POLYATTN_DEVICES")
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_cache_path("polyattn", appauthor=False) / "devices.json"


@cache
def _stored(where: Path) -> dict[str, Device]:
    if not where.exists():
        return {}
    try:
        entries = json.loads(where.read_text())
        found = {key: Device(**entry) for key, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise PolyattnError(f"{where} is no file of calibrations ({error}); calibrate again or remove it") from error
    for key, entry in found.items():
        rates = (entry.macs_per_second, entry.bytes_per_second, entry.step_seconds, entry.tile)
        if not all(isinstance(r, int | float) and 0 < r < float("inf") for r in rates):
            raise PolyattnError(f"{where} has a rate that is no positive number for {key!r}; calibrate again")
    return found


def _key(device: str) -> str:
    """What a calibration holds for: the device's model, and for a processor the number of threads."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


@cache
def processor() -> str:
    """The processor's model, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _measure(device: str, seconds: float) -> Device:
    side = SIDE[device]

    def rate(rows: int) -> float:
        a, b = torch.randn(rows, side, device=device), torch.randn(side, side, device=device)
        return rows * side * side / _shortest(lambda: a @ b, device, seconds)

    large = rate(side)
    source = torch.randn(16 * side * side, device=device)
    target = torch.empty_like(source)
    bandwidth = 8 * source.numel() / _shortest(lambda: target.copy_(source), device, seconds)
    tiny = torch.zeros(1, device=device)
    step = _shortest(lambda: [tiny + 1 for _ in range(100)], device, seconds) / 100
    # The rate r of a product with a short side s is modelled as large * s / (s + tile).
    tiles = [s * (large / min(rate(s), large) - 1) for s in SHORT]
    return Device(_key(device), large, bandwidth, step, max(1, round(statistics.median(tiles))))


def _shortest(call: Callable[[], object], device: str, seconds: float) -> float:
    """The shortest time of a call: what else runs on a machine makes times longer, never shorter."""
    times: list[float] = []
    call()
    _wait(device)
    end = time.perf_counter() + seconds
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 1000):
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
