"""Modules beside the layers of a study: counted by hand, in the layouts that they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import polyattn as pa
from polyattn.study import Baseline, complexity

C, H, W, N, B = 8, 4, 6, 24, 2


def case_of(module: Any, objective: str = "forward", **sizes: Any) -> Any:
    (case,) = complexity({"mine": module}, objective, **{"B": B, "N": N, "C": C, **sizes}).cases
    return case


@pytest.mark.parametrize(("objective", "passes"), [("forward", 1), ("training", 3)])
def test_a_convolution_takes_its_taps_at_every_position_and_twice_more_backwards(objective: str, passes: int):
    for sizes in ({"H": H, "W": W}, {}):
        case = case_of(nn.Conv2d(C, 16, 3, padding=1), objective, **sizes)
        assert case.macs == case.macs_as_run == passes * B * N * C * 16 * 9
        assert case.parameters == C * 16 * 9 + 16
        assert case.peak_bytes >= 4 * B * N * 16
        assert case.predicted_seconds > 0


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_of_torch_is_counted_as_self_attention(batch_first: bool):
    case = case_of(nn.MultiheadAttention(C, 2, batch_first=batch_first))
    assert case.macs == B * (4 * N * C * C + 2 * N * N * C)


def test_a_linear_layer_gets_a_sequence_and_keeps_its_input_only():
    case = case_of(nn.Linear(C, C), "training")
    assert case.macs == 3 * B * N * C * C
    assert case.kept_bytes == 0  # the input is none of its results


def test_a_function_makes_the_module_of_each_size():
    made = Baseline(lambda C: nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)), "B C H W")
    study = complexity({"mine": made, "nl": "nl"}, "training", orders=["planned"], C=[4, 8], H=3, W=5, N="H*W", B=2)
    assert [c.macs for c in study.cases if c.layer == "mine"] == [3 * 2 * 15 * c * c for c in (4, 8)]
    assert [(c.layer, c.order) for c in study.cases][:2] == [("mine", "module"), ("nl", "planned")]
    assert study.formulas["mine"] == ()
    assert {r["strategy"] for r in study.rows() if r["layer"] == "mine"} == {"module"}
    assert [str(t.get_text()) for t in study.plot().legends[0].get_texts()] == ["mine", "nl"]


def test_a_call_of_ones_own_and_a_block_of_polyattn():
    twice = Baseline(nn.Linear(C, C), "B N C", call=lambda module, x: (module(module(x)), x))
    assert case_of(twice).macs == 2 * B * N * C * C
    assert case_of(Baseline(pa.nn.PolyNL(C)), H=H, W=W).macs > 0


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.Dropout()).eval()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    case_of(module, "training", H=H, W=W)
    assert not any(m.training for m in module.modules())
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_modules_can_be_timed():
    case = case_of(nn.Linear(C, C), measure=True, seconds=0.01)
    assert case.measured_seconds > 0


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(5, 5), "does not run on an input of shape"),
        (nn.Conv3d(C, C, 1), "needs `layout`"),
        (Baseline(nn.Identity(), "B T C"), "needs the size T"),
        (Baseline(lambda C: C), "returned 8"),  # pyright: ignore[reportArgumentType]
        (3, "a layer is a specification"),
    ],
)
def test_modules_that_cannot_be_counted_are_refused_by_name(module: Any, message: str):
    with pytest.raises(pa.SizeError, match=message):
        case_of(module)
