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
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polyattn.errors import PolyattnError, SizeError
from polyattn.planning import DEVICES, Device
from polyattn.planning.costs import CUDA_NARROW

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIDE = {"cpu": 1536, "cuda": 8192}
"""Of the large matrix product; the copy is of as many entries as a few such matrices."""
SHORT = (8, 16, 32, 64)
"""Sides at which the fall of the rate is measured."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
WIDE = ("float32", "float64")
"""Dtypes that count as float32."""
NARROW = ("bfloat16", "float16")


def kind(device: str) -> str:
    """The device that plans are made for where tensors are on a torch device of this type: "cpu" if it is unknown."""
    return device if device in DEVICES else "cpu"


def calibrated(device: str = "cpu", dtype: str | torch.dtype = "float32") -> Device:
    """This machine's calibration if there is one, else the figures that polyattn ships.

    Args:
        device: "cpu" or "cuda".
        dtype: in which products are computed. Polyattn ships no figures of 16 bits for processors, where they count as
            float32 until they are measured.

    Raises:
        SizeError: a device or a dtype that polyattn knows nothing of.
        PolyattnError: the file of calibrations cannot be read; its path is in the message.
    """
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}, or give a Device")
    name, file = dtype_name(dtype), os.environ.get("POLYATTN_DEVICES")
    if "torch" not in sys.modules and not path().exists():
        return _shipped(device, name)  # as below: torch takes seconds to import, and nothing is kept to look up
    import torch

    return _calibrated(device, name, torch.get_num_threads(), file)


def dtype_name(dtype: str | torch.dtype) -> str:
    """The name of the dtype that figures are kept for.

    Raises:
        SizeError: it is none in which layers are computed.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise SizeError(f"unknown dtype {name!r}; there are {', '.join(DTYPES)}")
    return "float32" if name in WIDE else name


_measured = 0


def version() -> tuple[int, int]:
    """What may change which calibration holds, at the little cost that a layer can pay in every call.

    The environment is not asked: a file that POLYATTN_DEVICES names later holds for plans that are made later.
    """
    import torch

    return torch.get_num_threads(), _measured


@cache
def _calibrated(device: str, dtype: str, threads: int, file: str | None) -> Device:
    import torch

    shipped = _shipped(device, dtype)
    if device == "cuda" and not torch.cuda.is_available():
        return shipped  # planned for another machine
    return replace(_stored(path()).get(_key(device, dtype), shipped), kind=device)


def _shipped(device: str, dtype: str) -> Device:
    """Return the figures that polyattn ships."""
    return DEVICES[device] if device == "cpu" or dtype in WIDE else CUDA_NARROW


def products_dtype(x: Tensor) -> str:
    """The dtype in which products of a tensor are computed, where plans depend on it: one of 16 bits on a GPU."""
    import torch

    if x.device.type != "cuda":
        return "float32"
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    name = str(dtype).removeprefix("torch.")
    return name if name in NARROW else "float32"


def calibrate(device: str = "cpu", *, dtype: str | torch.dtype = "float32", seconds: float = 4.0) -> Device:
    """Measure this machine and keep the result for `calibrated`.

    Args:
        device: "cpu" or "cuda".
        dtype: of what is measured.
        seconds: about how long it may take.

    Returns:
        Rates in multiply-accumulates and bytes a second, and seconds a step.

    Raises:
        SizeError: an unknown device or dtype, or "cuda" where there is none.
        PolyattnError: the file cannot be written.
    """
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SizeError("there is no CUDA device to calibrate")
    name = dtype_name(dtype)
    with torch.no_grad():
        found = _measure(device, name, seconds / (3 + len(SHORT)))
    where = path()
    everything = {key: asdict(value) for key, value in {**_stored(where), _key(device, name): found}.items()}
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
        rates = (entry.macs_per_second, entry.bytes_per_second, entry.step_seconds, entry.tile, entry.itemsize)
        if not all(isinstance(r, int | float) and 0 < r < float("inf") for r in rates):
            raise PolyattnError(f"{where} has a rate that is no positive number for {key!r}; calibrate again")
    return found


def _key(device: str, dtype: str) -> str:
    """What a calibration holds for: the device's model, for a processor the number of threads, a dtype but float32."""
    import torch

    model = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    return model if dtype in WIDE else f"{model}, {dtype}"


@cache
def processor() -> str:
    """The processor's model, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _measure(device: str, name: str, seconds: float) -> Device:
    import torch

    side, dtype = SIDE[device], getattr(torch, name)

    def rate(rows: int) -> float:
        a, b = (torch.randn(n, side, device=device, dtype=dtype) for n in (rows, side))
        return rows * side * side / _shortest(lambda: a @ b, device, seconds)

    large = rate(side)
    source = torch.randn(16 * side * side, device=device)
    target = torch.empty_like(source)
    bandwidth = 8 * source.numel() / _shortest(lambda: target.copy_(source), device, seconds)
    tiny = torch.zeros(1, device=device)
    step = _shortest(lambda: [tiny + 1 for _ in range(100)], device, seconds) / 100
    # The rate r of a product with a short side s is modelled as large * s / (s + tile).
    tiles = [s * (large / min(rate(s), large) - 1) for s in SHORT]
    tile = max(1, round(statistics.median(tiles)))
    return Device(_key(device, name), large, bandwidth, step, tile, dtype.itemsize, device)


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
        import torch

        torch.cuda.synchronize()
