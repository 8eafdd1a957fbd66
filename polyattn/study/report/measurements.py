"""Tables of measurements: read from a benchmark's JSON file, or measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyattn.algebra import Spec
from polyattn.errors import PolyattnError
from polyattn.planning import Plan

SECONDS = 0.3
"""Least time for each order, in seconds."""
LARGEST_PEAK = 2 << 30
"""Peak bytes of intermediates above which an order is not run."""


@dataclass(frozen=True)
class Measurements:
    """A table.

    Attributes:
        title: its subject.
        machine: the machine, in a line; "" if it is unknown.
        columns: their names.
        rows: rows of as many cells.
    """

    title: str
    machine: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_measurements(path: Path) -> Measurements:
    """Read the rows of a benchmark's file, or of a JSON list of flat objects.

    Raises:
        PolyattnError: the file cannot be read, or does not hold rows.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PolyattnError(f"the measurements in {str(path)!r} cannot be read: {error}") from None
    lists = [data] if isinstance(data, list) else list(data.values()) if isinstance(data, dict) else []
    rows: list[dict[str, Any]] = next((v for v in lists if _is_rows(v)), [])
    if not rows:
        raise PolyattnError(
            f"{str(path)!r} holds no measurements: expected a list of objects of numbers and texts, "
            "alone or as a value of an object"
        )
    # `key` is a benchmark's own identifier of a row.
    columns = [c for c in dict.fromkeys(k for row in rows for k in row) if c != "key"]
    machine = data.get("machine") if isinstance(data, dict) else None
    return Measurements(
        path.name,
        ", ".join(f"{k} {v}" for k, v in machine.items()) if isinstance(machine, dict) else "",
        tuple(columns),
        tuple(tuple(_cell(row.get(c)) for c in columns) for row in rows),
    )


def _is_rows(value: object) -> bool:
    def flat(row: object) -> bool:
        return isinstance(row, dict) and all(isinstance(v, str | int | float | bool | None) for v in row.values())

    return isinstance(value, list) and bool(value) and all(map(flat, value)) and any(value)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def measure(plans: Mapping[str, Sequence[tuple[str, Plan]]]) -> Measurements:
    """Time one forward evaluation on this machine's CPU in float32.

    Args:
        plans: for each layer, its orders with their names.
    """
    import torch

    rows = []
    for name, orders in plans.items():
        for label, plan in orders:
            at = " ".join(f"{k}={v}" for k, v in {"B": plan.batch, **plan.sizes}.items())
            took = f"not run: {plan.peak_bytes:,} bytes" if plan.peak_bytes > LARGEST_PEAK else _milliseconds(plan)
            rows.append((name, label, at, f"{plan.macs:,}", took))
    threads = torch.get_num_threads()
    where = f"CPU, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}, float32"
    return Measurements("one evaluation, measured", where, ("layer", "order", "at", "MACs", "median ms"), tuple(rows))


def _milliseconds(plan: Plan) -> str:
    import torch
    from torch.utils.benchmark import Timer

    from polyattn.lowering import lower

    graph = lower(plan)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in _shapes(plan.spec, plan)]
    with torch.no_grad():
        # Not timed: the first call allocates buffers and chooses kernels.
        graph(*tensors)
        timer = Timer(
            "graph(*tensors)", globals={"graph": graph, "tensors": tensors}, num_threads=torch.get_num_threads()
        )
        return f"{1000 * timer.blocked_autorange(min_run_time=SECONDS).median:.4g}"


def _shapes(spec: Spec, plan: Plan) -> list[tuple[int, ...]]:
    from polyattn.language.sizes import value_of

    found = []
    for tensor in (*spec.inputs, *spec.parameters):
        shape = tuple(value_of(atoms, plan.sizes) for atoms in spec.shape(tensor))
        found.append((plan.batch, *shape) if tensor in spec.inputs else shape)
    return found
