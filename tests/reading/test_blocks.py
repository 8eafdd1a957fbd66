"""Blocks as people write them: their equations have the modules' values, at the example's sizes and at others."""

import pytest
import torch

from tests.reading.blocks import FusedAttention, NonLocal, SeparateAttention, SqueezeExcite
from tests.reading.oracle import assert_reads, draw

TOKENS = (draw(2, 5, 16),), (draw(3, 7, 16),)
MAPS = (draw(2, 8, 3, 5),), (draw(3, 8, 4, 2),)


@pytest.mark.parametrize("block", [FusedAttention, pytest.param(SeparateAttention, marks=pytest.mark.nightly)])
def test_attention_over_tokens_reads_whole(block):
    torch.manual_seed(0)
    reading = assert_reads(block(), *TOKENS)
    assert reading.spec.inputs == {"x": ("N", "C")}
    assert reading.sizes["N"] == 5
    assert reading.fixed["C"] == 16


@pytest.mark.parametrize(
    "block",
    [NonLocal, *(pytest.param(b, marks=pytest.mark.nightly) for b in (lambda: NonLocal(softmax=False), SqueezeExcite))],
    ids=["non-local", "without softmax", "SE"],
)
def test_attention_over_maps_reads_whole(block):
    torch.manual_seed(0)
    reading = assert_reads(block(), *MAPS)
    assert reading.spec.inputs == {"x": ("C", "H", "W")}
    assert set(reading.sizes) - set(reading.fixed) == {"H", "W"}
