"""The examples that people copy, each run as it stands; they assert what they say.

One worker has torch and the rest in memory already, so that a file takes a second or two here, and ten on its own.
"""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
SHORT = {
    "compare_with_a_published_block": "proved at every size",
    "judge_a_triton_kernel": "no, modular",
    "replace_a_vit_block": "for every number of tokens: equal",
    "sweep_costs": "e_nl takes less for C = 14 to 16",
    "swin_window": "the same output",
    "train_and_decode": "decoding gives the same",
}
INTERPRETED = {"judge_a_triton_kernel"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.interpreted if n in INTERPRETED else ()) for n in SHORT]
)
def test_an_example_runs_and_says_what_it_found(name, tmp_path, monkeypatch, capsys):
    if name in INTERPRETED:
        pytest.importorskip("triton")
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])
    runpy.run_path(str(FOLDER / f"{name}.py"))
    assert SHORT[name] in capsys.readouterr().out
