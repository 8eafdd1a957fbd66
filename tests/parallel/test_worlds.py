"""Layers whose positions are spread over 2 and 3 processes, and nightly over 4, uneven and empty pieces among them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.drawing import PROFILE
from tests.parallel.cases import layers_of

pytestmark = pytest.mark.slow  # starting the worlds takes a minute

SIZES = (2, 3) if PROFILE == "ci" else (2, 3, 4)
FOUR = pytest.param(4, marks=pytest.mark.nightly)
TOLERANCE = {"torch.float32": 1e-6, "torch.float64": 1e-12}


@cache
def worlds() -> dict[int, dict]:
    """What worlds of these sizes measured; they are started once."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("world.py")), folder, *map(str, SIZES)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return {size: json.loads(Path(folder, f"{size}.json").read_text()) for size in SIZES}


@pytest.mark.parametrize("size", [2, 3, FOUR])
def test_a_layer_on_pieces_is_the_layer_and_sends_what_its_plan_says(size: int):
    rows = worlds()[size]["every_layer"]
    assert {row["layer"] for row in rows} == set(layers_of(size))
    wrong = [
        row
        for row in rows
        if not row["statistics"] <= TOLERANCE[row["dtype"]]
        # A batch norm of few positions magnifies rounding, in one process as in several.
        or not row["forward"] <= max(TOLERANCE[row["dtype"]], 3 * row["rounding"][0])
        or not row["backward"] <= max(TOLERANCE[row["dtype"]], 3 * row["rounding"][1])
        or row["sent"] != row["planned"]
    ]
    assert not wrong
    assert all(min(row["sent"][:2]) > 0 for row in rows if row["layer"] != "axial width")
    for part in ("columns", "video", "channels", "agreed", "distributed_tensors", "compiled"):
        for row in worlds()[size][part]:
            wrong = {k: v for k, v in row.items() if k in ("error", "forward", "backward", "statistics") and v > 1e-12}
            assert not wrong, (part, row)
            assert row.get("sent") == row.get("planned"), (part, row)


@pytest.mark.parametrize("part", ["refused", "called_by_its_hook", "compiled_in_evaluation"])
def test_calls_that_processes_make_differently_are_refused_on_all_and_leave_nothing_behind(part: str):
    rows = worlds()[2][part]
    assert rows
    assert not [row for row in rows if row["error"] > 1e-12]


def test_two_processes_end_up_with_the_gradients_of_the_joined_batch():
    (row,) = worlds()[2]["joined_batch"]
    assert all("PlannedLayer" in name for name in row["made_by"])
    assert max(row["apart"]) <= 1e-12


@pytest.mark.parametrize("size", [2, FOUR])
def test_a_training_step_reduces_what_scale_says_and_takes_the_memory_within_a_factor_of_1_5(size: int):
    (row,) = worlds()[size]["trained"]
    assert row["sent"] == row["planned"]
    assert 1 / 1.5 < row["memory"] < 1.5
