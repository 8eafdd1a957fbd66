"""Read timm's attention-like layers: which of them read without cuts, and agree with the module at a second size.

Run `python benchmarks/reading.py`, or with names of classes for some of them; writes `results/reading.json`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import polyattn as pa
from polyattn.reading.check import evaluate

RESULTS = Path(__file__).parent / "results" / "reading.json"
WORDS = ("attention", "attn", "nonlocal", "bilinear", "squeeze", "globalcontext", "gather", "talking")
CHANNELS, HEADS = 32, 4
VALUES: dict[str, Any] = {
    **dict.fromkeys(
        ("dim", "channels", "in_channels", "in_chs", "embed_dim", "d_model", "in_features", "in_dim"), CHANNELS
    ),
    **dict.fromkeys(("dim_out", "out_dim", "out_features", "out_channels", "out_chs", "dim_out"), CHANNELS),
    **dict.fromkeys(("num_heads", "heads", "n_heads"), HEADS),
    **dict.fromkeys(("window_size", "block_size", "win_size"), 4),
    **dict.fromkeys(("input_resolution", "resolution", "feat_size", "fmap_size", "input_size"), (8, 8)),
    **dict.fromkeys(("key_dim", "dim_head", "head_dim", "dim_key"), 8),
    "grid_size": (4, 4),
    "sr_ratio": 1,
    "attn_ratio": 2,
    "num_features": CHANNELS,
    "groups": 4,
    "act_layer": nn.GELU,
    "norm_layer": nn.LayerNorm,
    "qk_norm": False,
    "feature_size": (8, 8),
}


def classes() -> Iterator[type[nn.Module]]:
    """Yield the layers of timm whose names say attention, once each."""
    seen: set[str] = set()
    for package in ("timm.layers", "timm.models"):
        module = importlib.import_module(package)
        for info in pkgutil.iter_modules(module.__path__):
            try:
                found = importlib.import_module(f"{package}.{info.name}")
            except ImportError:
                continue
            for name, value in vars(found).items():
                if not (inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == found.__name__):
                    continue
                plain = name.lower()
                if (
                    any(w in plain for w in WORDS)
                    and not any(w in plain for w in ("pool", "norm", "mixer", "stage", "globalcontextvit"))
                    and "block" not in plain
                    and name not in seen
                ):
                    seen.add(name)
                    yield value


def made(kind: type[nn.Module]) -> nn.Module:
    """Return a layer with small sizes for the arguments that its constructor needs."""
    given = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in VALUES and (parameter.default is inspect.Parameter.empty or name in ("num_heads", "heads")):
            given[name] = VALUES[name]
    if "num_heads" in given and "head_dim" in given:
        given.pop("head_dim")
    return kind(**given)


def examples() -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Yield example inputs with a second size of each: maps, tokens, maps with the channels last."""
    for shapes in (
        ((2, CHANNELS, 8, 8), (3, CHANNELS, 12, 4)),
        ((2, 16, CHANNELS), (3, 25, CHANNELS)),
        ((2, 8, 8, CHANNELS), (3, 12, 4, CHANNELS)),
    ):
        first, second = (
            torch.randn(s, generator=torch.Generator().manual_seed(0), dtype=torch.float64) for s in shapes
        )
        yield (first,), (second,)


def running(layer: nn.Module) -> tuple[Any, Any] | None:
    """Return the first example at which a layer runs."""
    for first, second in examples():
        try:
            with torch.no_grad():
                layer(*first)
        except Exception:
            continue
        return first, second
    return None


def agrees(reading: pa.Reading, layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    """Return how far the equation is from the layer at inputs of other lengths, relative to the largest entry."""
    sizes, tensors = dict(reading.sizes), dict(reading.tensors)
    batched = set(reading.batch)
    for (name, letters), x in zip(reading.spec.inputs.items(), inputs, strict=False):
        lead = x.shape[1:] if name in batched else x.shape
        sizes |= {letter: n for letter, n in zip(letters, lead, strict=True) if not letter.isdigit()}
        tensors[name] = x
    sizes = {n: v for n, v in sizes.items() if reading.spec.sizes.parts(n) is None}
    wanted = layer(*inputs)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    found = evaluate(reading.spec, sizes, {n: t.double() for n, t in tensors.items()}, batched - {reading.spec.output})
    return float((found.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max().clamp_min(1.0))


def study(kind: type[nn.Module]) -> dict[str, Any]:
    row: dict[str, Any] = {"class": kind.__name__, "module": kind.__module__}
    try:
        torch.manual_seed(0)
        layer = made(kind).double().eval()
        for p in layer.parameters():
            if p.dim() <= 1:
                nn.init.normal_(p, std=0.5)
    except Exception as error:
        return {**row, "status": "not made", "reason": f"{type(error).__name__}: {str(error)[:120]}"}
    found = running(layer)
    if found is None:
        return {**row, "status": "needs other inputs"}
    first, second = found
    start = time.perf_counter()
    try:
        reading = pa.read(layer, first)
    except pa.PolyattnError as error:
        return {**row, "status": "refused", "reason": str(error).split("\n")[0][:200]}
    row["seconds"] = round(time.perf_counter() - start, 2)
    row["equation"] = str(reading.spec)
    row["cuts"] = [f"{c.operation} ({c.place}): {c.reason}" for c in reading.cuts]
    row["status"] = "complete" if reading.is_complete else "cut"
    if reading.is_complete:
        try:
            with torch.no_grad():
                wanted = layer(*second)
        except Exception:
            row["second size"] = "the layer has one size"
        else:
            del wanted
            with torch.no_grad():
                row["second size"] = agrees(reading, layer, second)
    return row


def main() -> None:
    wanted = sys.argv[1:]
    rows = []
    for kind in classes():
        if wanted and kind.__name__ not in wanted:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = study(kind)
        except Exception as error:
            row = {"class": kind.__name__, "status": "crash", "reason": f"{type(error).__name__}: {str(error)[:200]}"}
        rows.append(row)
        second = row.get("second size", "")
        detail = row.get("reason") or "; ".join(row.get("cuts", ())) or f"second size: {second}"
        print(f"{row['status']:18} {row['class']:34} {row.get('seconds', ''):>6} {detail[:150]}", flush=True)
    counts = {s: sum(r["status"] == s for r in rows) for s in dict.fromkeys(r["status"] for r in rows)}
    print(counts)
    if not wanted:
        data = {"torch": torch.__version__, "timm": timm.__version__, "counts": counts, "layers": rows}
        RESULTS.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
