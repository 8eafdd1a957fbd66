"""The figures of the roofline, measured once for each device and kept.

`calibrate` times matrix products, products with one short side, a copy and an operation on almost nothing.
The result is kept in a JSON file, one entry for each device and number of threads; it can be copied to machines of the
same kind. POLYATTN_DEVICES names the file; by default it is in the user's cache folder. Plans work without a readable
file or a valid entry: they warn once, and use the figures shipped with polyattn.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import tempfile
import warnings
from dataclasses import MISSING, asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyattn.errors import PolyattnError, SizeError
from polyattn.planning import DEVICES, Device
from polyattn.planning.costs import CUDA_NARROW

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polyattn.lowering.measuring import Measured

LARGEST = 1 << 24
"""Bytes of a file of calibrations; a larger file is refused unread."""
PLAUSIBLE = {
    "macs_per_second": (1e5, 1e19), "bytes_per_second": (1e5, 1e19), "step_seconds": (1e-10, 10.0), "tile": (0.1, 1e6),
    "itemsize": (1, 16),
}  # fmt: skip
"""Bounds of a calibration's figures, far beyond any machine's: outside of them costs would overflow."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
WIDE = ("float32", "float64")
"""Dtypes treated as float32."""
NARROW = ("bfloat16", "float16")


def kind(device: str) -> str:
    """Return the planning device for tensors on a torch device of this type: "cpu" if it is unknown."""
    return device if device in DEVICES else "cpu"


def calibrated(device: str = "cpu", dtype: str | torch.dtype = "float32") -> Device:
    """Return this machine's calibration if it exists, else the figures shipped with polyattn.

    Args:
        device: "cpu" or "cuda".
        dtype: dtype of the products. Polyattn ships no figures of 16 bits for processors, which count as float32 until
            they are measured.

    Raises:
        SizeError: unknown device or dtype.
    """
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}, or give a Device")
    name, file = dtype_name(dtype), os.environ.get("POLYATTN_DEVICES")
    if "torch" not in sys.modules and _is_absent(path()):
        return _shipped(device, name)  # as below: torch takes seconds to import, and nothing is kept to look up
    import torch

    return _calibrated(device, name, torch.get_num_threads(), file)


def dtype_name(dtype: str | torch.dtype) -> str:
    """Return the name of the dtype under which figures are kept.

    Raises:
        SizeError: layers do not compute in this dtype.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise SizeError(f"unknown dtype {name!r}; there are {', '.join(DTYPES)}")
    return "float32" if name in WIDE else name


_measured = 0


def version() -> tuple[int, int]:
    """Return the state that selects a calibration, cheap enough for every call of a layer.

    The environment is left out: a later value of POLYATTN_DEVICES applies to later plans.
    """
    import torch

    return torch.get_num_threads(), _measured


# `file` is part of the key alone: another POLYATTN_DEVICES must not find the old answer.
@cache
def _calibrated(device: str, dtype: str, threads: int, file: str | None) -> Device:
    import torch

    shipped = _shipped(device, dtype)
    if device == "cuda" and not torch.cuda.is_available():
        return shipped  # planned for another machine
    return replace(_stored(path()).get(_key(device, dtype), shipped), kind=device)


def _shipped(device: str, dtype: str) -> Device:
    """Return the figures shipped with polyattn."""
    return DEVICES[device] if device == "cpu" or dtype in WIDE else CUDA_NARROW


def products_dtype(x: Tensor) -> str:
    """Return the dtype of products of a tensor, as far as plans depend on it: one of 16 bits on a GPU."""
    import torch

    if x.device.type != "cuda":
        return "float32"
    # Under autocast the products run in its dtype, whatever the tensor's.
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    name = str(dtype).removeprefix("torch.")
    return name if name in NARROW else "float32"


def calibrate(device: str = "cpu", *, dtype: str | torch.dtype = "float32", seconds: float = 4.0) -> Device:
    """Measure this machine and keep the result for `calibrated`.

    Args:
        device: "cpu" or "cuda".
        dtype: dtype of the measurement.
        seconds: approximate limit of the time, twice that on a busy machine; a quiet one needs a fraction of it.

    Returns:
        Rates in multiply-accumulates and bytes a second, and seconds a step.

    Raises:
        SizeError: an unknown device or dtype, or "cuda" on a machine without a CUDA device.
        PolyattnError: the file is not writable, which is checked before the measurement; or the machine is too busy for
            useful figures, and none are kept.
    """
    return calibration(device, dtype, seconds).device


def calibration(device: str, dtype: str | torch.dtype = "float32", seconds: float = 4.0) -> Measured:
    """Run `calibrate`; return its figures with their reliability."""
    if device not in DEVICES:
        raise SizeError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")
    import torch

    from polyattn.lowering.measuring import NOISY, measure

    if device == "cuda" and not torch.cuda.is_available():
        raise SizeError("there is no CUDA device to calibrate")
    name = dtype_name(dtype)
    key, where = _key(device, name), path()
    # Fail before the measurement, not after it.
    _replace(where, None)
    found = measure(key, device, getattr(torch, name), seconds)
    if found.noise > NOISY:
        raise PolyattnError(
            f"this machine is too busy to calibrate: {found.rounds} rounds differ by {found.noise:.0%}, and threads "
            f"waited {found.waiting:.0%} of the time; nothing was kept in {where}: calibrate again when less is "
            f"running, or with more `seconds`"
        )
    # Read only now: another process may have added its entry during the measurement.
    kept = {k: entry for k, entry in _entries(where)[0].items() if not _fault(entry)}
    kept[key] = {**asdict(found.device), "noise": round(found.noise, 4)}
    _replace(where, json.dumps(kept, indent=1))
    global _measured
    _measured += 1
    # `_calibrated` holds values read from `_stored`, so both caches have to go.
    _stored.cache_clear()
    _calibrated.cache_clear()
    return found


def _replace(where: Path, text: str | None) -> None:
    """Write a file as a whole; without a text only test if that is possible."""
    draft = None
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        if where.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A draft beside the target, since `os.replace` is atomic within one file system only.
        handle, draft = tempfile.mkstemp(dir=where.parent, suffix=".json")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text or "")
        if text is not None:
            os.replace(draft, where)
            draft = None
    except OSError as error:
        raise PolyattnError(
            f"calibrations cannot be kept in {where}: {error.strerror or error}; put that right, or name another file "
            f"in POLYATTN_DEVICES"
        ) from error
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)


def path() -> Path:
    """Return the file of calibrations."""
    given = os.environ.get("POLYATTN_DEVICES")
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_cache_path("polyattn", appauthor=False) / "devices.json"


@cache
def _stored(where: Path) -> dict[str, Device]:
    """Read the usable calibrations in a file."""
    entries, wrong = _entries(where)
    found = {}
    for key, entry in entries.items():
        fault = _fault(entry)
        if fault:
            wrong = wrong or f"the entry {key[:80]!r} is not a calibration: {fault}"
        else:
            found[key] = Device(**_known(entry))
    # The cache is cleared after each calibration; a warning about one file is still given only once.
    if wrong and where not in _warned:
        _warned.add(where)
        warnings.warn(
            f"{where}: {wrong}; plans use the figures that polyattn ships instead: run `polyattn calibrate`, or remove "
            f"the file",
            stacklevel=2,
        )
    return found


_warned: set[Path] = set()


def _is_absent(where: Path) -> bool:
    try:
        return not where.exists()
    except OSError:  # a folder that may not be read: `_stored` says so
        return False


def _entries(where: Path) -> tuple[dict[str, Any], str]:
    """Read the entries of a file as they stand, with the reason of a failure: "" if the file is valid or absent."""
    try:
        if not where.exists():
            return {}, ""
        if not where.is_file():
            return {}, "it is not a file"
        if where.stat().st_size > LARGEST:
            return {}, f"it has more than {LARGEST:,} bytes, and is no file of calibrations"
        entries = json.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, f"it cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        return {}, f"it is no file of calibrations: {error}"
    if not isinstance(entries, dict):
        return {}, "it is no file of calibrations: a JSON object should be in it"
    return entries, ""


def _known(entry: dict[str, Any]) -> dict[str, Any]:
    """Select the fields of a device in an entry; fields of other versions are ignored."""
    return {field.name: entry[field.name] for field in fields(Device) if field.name in entry}


def _fault(entry: Any) -> str:
    """Return the reason why an entry is not a device; "" if it is one."""
    if not isinstance(entry, dict):
        return "a JSON object should be here"
    missing = [f.name for f in fields(Device) if f.default is MISSING and f.name not in entry]
    if missing:
        return f"it has no {', '.join(missing)}"
    for name, (least, most) in PLAUSIBLE.items():
        value = entry.get(name, least)
        # A bool is an int in Python, but not a figure.
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            return f"{name} is {str(value)[:40]}, not a number from {least:g} to {most:g}"
    if not isinstance(entry["name"], str) or entry.get("kind", "cpu") not in list(DEVICES):
        return f"name and kind are texts, the kind one of {', '.join(DEVICES)}"
    return ""


def _key(device: str, dtype: str) -> str:
    """Return the key of a calibration: the device's model, a processor's number of threads, a dtype but float32."""
    import torch

    model = torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {torch.get_num_threads()} threads"
    return model if dtype in WIDE else f"{model}, {dtype}"


@cache
def processor() -> str:
    """Return the processor's model."""
    # `platform.processor` is empty or just "x86_64" on most Linux systems.
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
