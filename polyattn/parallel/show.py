"""`polyattn scale`: the cost of training a network, chosen by name, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from polyattn import vision
from polyattn.errors import SizeError
from polyattn.lowering.devices import DTYPES
from polyattn.parallel.scale import Layer, Scale, scale
from polyattn.planning import Link

IMAGES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "seresnet50")
CLIPS = ("c2d_resnet50", "c2d_resnet101", "i3d_resnet50", "i3d_resnet101")
FIGURES = (
    *("kind", "map", "kept by a device", "reduced, forward", "reduced, backward", "dealt out, by all devices"),
    *("sent by a device", "sent if it gathered the map", "time of sending"),
)
COLUMNS = 3
"""Columns of figures per table: the number that fits into 80 characters."""


def print_scale(
    console: Console,
    network: str,
    attention: str,
    image: str,
    *,
    batch: int,
    devices: int,
    gigabytes_per_second: float,
    microseconds: float,
    device: str,
    states: int,
    as_json: bool,
    dtype: str = "float32",
) -> None:
    """Build the network in a dtype, count its costs, and print them.

    Raises:
        SizeError: `network` is unknown, or a number or `image` is malformed.
        InsertError: `attention` is unknown or does not fit the network.
    """
    sides = _sides(network, image)
    # A comparison with nan is false.
    for option, number, fits in (
        ("--link", gigabytes_per_second, isfinite(gigabytes_per_second) and gigabytes_per_second > 0),
        ("--latency", microseconds, isfinite(microseconds) and microseconds >= 0),
        ("--batch", batch, batch > 0),
        ("--devices", devices, devices > 0),
        ("--states", states, states >= 0),
    ):
        if not fits:
            least = "0 or more" if option in ("--latency", "--states") else "positive"
            raise SizeError(f"`{option}`: got {number!r}, expected a finite number that is {least}")
    if dtype not in DTYPES:
        raise SizeError(f"`--dtype`: got {dtype!r}, expected one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {} if len(sides) == 3 else {"image_size": sides}
    model = getattr(vision, network)(attention=None if attention == "none" else attention, **options)
    model = model.to(getattr(torch, dtype))
    link = Link(gigabytes_per_second * 1e9, microseconds * 1e-6)
    found = scale(model, (batch, 3, *sides), devices, link=link, device=device, states=states)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
        return
    title = f"{network}, {attention}, {'x'.join(map(str, sides))}, {batch} on each of {devices} devices"
    title += "" if dtype == "float32" else f", {dtype}"
    console.print(whole_table(found, title))
    for table in layers_tables(found.layers, devices):
        console.print(table)
    # Layers with one reason share a line.
    refused: dict[str, list[str]] = {}
    for layer in found.layers:
        if layer.communication is None:
            refused.setdefault(layer.refusal, []).append(layer.name)
    for reason, names in refused.items():
        console.print(f"cannot be cut: {', '.join(names)}. {reason}", soft_wrap=True)


def _sides(network: str, image: str) -> tuple[int, ...]:
    if network not in (*IMAGES, *CLIPS):
        raise SizeError(f"there is no network {network!r}; there are {', '.join((*IMAGES, *CLIPS))}")
    parts = image.lower().split("x")
    axes = 3 if network in CLIPS else 2
    if not all(p.isdecimal() and int(p) > 0 for p in parts) or len(parts) > axes or (axes == 3 and len(parts) == 1):
        example = "8x224 (frames and side)" if axes == 3 else "224 or 224x320"
        raise SizeError(f"--image for {network} is written as {example}; {image!r} is not")
    sides = [int(p) for p in parts]
    # One side means a square; of a clip, the frames come first.
    return (*sides, *[sides[-1]] * (axes - len(sides)))


def whole_table(found: Scale, title: str) -> Table:
    """Format one device's memory, communication and time per step."""
    table = Table(title=title, title_justify="left")
    table.add_column("of each device, in one step")
    table.add_column("data parallel", justify="right")
    table.add_column("fully sharded", justify="right")
    # Rounded up: the device with the largest shard counts.
    spread = [-(-n // found.devices) for n in (found.parameters, found.gradients, found.optimizer)]
    rows = [
        ("parameters and buffers", size(found.parameters), size(spread[0])),
        ("gradients", size(found.gradients), size(spread[1])),
        ("optimizer", size(found.optimizer), size(spread[2])),
        ("activations", size(found.activations), size(found.activations)),
        ("memory", size(found.memory), size(found.sharded_memory)),
        ("gradients reduced", size(found.exchanged), size(found.exchanged)),
        ("GMACs forward", f"{found.macs / 1e9:,.2f}", f"{found.macs / 1e9:,.2f}"),
        ("arithmetic and memory traffic", time(found.computing), time(found.computing)),
        # FSDP2 all-gathers weights twice and reduce-scatters gradients once: 1.5 times an all-reduce.
        ("communication", time(found.exchanging), time(1.5 * found.exchanging)),
        ("step, nothing overlapped", time(found.seconds), time(found.computing + 1.5 * found.exchanging)),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def layers_tables(layers: tuple[Layer, ...], devices: int) -> Iterator[Table]:
    """Format the attentions sharded by positions, equal ones in one column, a few columns per table."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for layer in layers:
        # Blocks of one stage have equal figures: the printed figures are the key of a column.
        alike.setdefault(_figures(layer), []).append(layer.name)
    columns = list(alike.items())
    for first in range(0, len(columns), COLUMNS):
        some = columns[first : first + COLUMNS]
        table = Table(title=f"attention with the whole batch's maps cut into {devices}", title_justify="left")
        table.add_column("of each layer, in one step")
        for _, names in some:
            table.add_column("\n".join(names), justify="right", overflow="fold")
        for row in zip(FIGURES, *(figures for figures, _ in some), strict=True):
            table.add_row(*row)
        yield table


def _figures(layer: Layer) -> tuple[str, ...]:
    shape, known = "x".join(map(str, layer.shape)), layer.communication
    if known is None:
        return (layer.kind, shape, *["-"] * (len(FIGURES) - 2))
    sizes = (known.kept, known.forward, known.backward, sum(known.dealt), known.sent, known.gathering)
    return (layer.kind, shape, *map(size, sizes), time(layer.seconds))


def size(count: float) -> str:
    """Format a number of bytes with its unit.

    >>> size(1536), size(2.5e9)
    ('1.54 kB', '2.50 GB')
    """
    for unit, scale_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale_:
            return f"{count / scale_:,.2f} {unit}"
    return f"{count:,.0f} B"


def time(seconds: float) -> str:
    """Format seconds with their unit.

    >>> time(0.0123), time(2.0)
    ('12.30 ms', '2.00 s')
    """
    for unit, scale_ in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale_:
            return f"{seconds / scale_:,.2f} {unit}"
    return f"{seconds * 1e6:,.1f} µs"
