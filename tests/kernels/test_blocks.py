"""How `bilinear` reads maps: in units of memory as wide as their strides allow, with offsets as wide as they need."""

from __future__ import annotations

import pytest
import torch

from polyattn.kernels.tuning import Tile

from .cases import CASES, DEVICE, Sizes, distance, tensors

pytestmark = pytest.mark.interpreted


def blocks(groups, s, t, *maps):
    from polyattn.kernels.bilinear.triton import Blocks

    return Blocks.of(groups, s, t, *maps)


def channels_first(*shape: int) -> torch.Tensor:
    b, h, w, c = shape
    return torch.empty(b, c, h, w, device="meta").movedim(1, -1)


@pytest.mark.parametrize(("side", "unit"), [(112, 8), (56, 8), (28, 4), (14, 2), (7, 1)])
def test_a_map_whose_channels_come_first_is_read_by_the_whole_rows_of_its_blocks(side, unit):
    cut = blocks(4, 7, 7, channels_first(2, side, side, 64))
    assert (cut.last, cut.unit, cut.whole, cut.wide) == (False, unit, True, False)


def test_a_map_whose_channels_come_last_is_read_by_channels_of_a_group_at_any_sides():
    cut = blocks(4, 7, 7, torch.empty(2, 55, 33, 96, device="meta"))
    assert (cut.last, cut.unit, cut.whole) == (True, 8, False)
    assert blocks(4, 7, 7, torch.empty(2, 56, 56, 36, device="meta")).unit == 1


def test_two_maps_are_read_in_units_that_both_have():
    first, last = channels_first(2, 56, 56, 64), torch.empty(2, 56, 56, 64, device="meta")
    assert blocks(4, 7, 7, first, last).unit == blocks(4, 7, 7, last, first).unit == 1
    assert blocks(4, 7, 7, first, first[:, ::2, ::2].contiguous()).unit == 1
    assert blocks(4, 7, 7, first, torch.empty(2, 64, 56, 60, device="meta").movedim(1, -1)[:, :, :56]).unit == 4


def test_a_sample_of_more_than_a_thousand_million_elements_has_offsets_of_64_bits():
    assert not blocks(1, 7, 7, torch.empty(9, 1024, 1024, 1024, device="meta")).wide
    assert blocks(1, 7, 7, torch.empty(9, 1024, 1025, 1024, device="meta")).wide


@pytest.mark.parametrize("far", ["x", "y"])
def test_places_beyond_two_to_the_31_elements_are_reached_in_a_map_of_either_memory(far):
    """Virtual memory only: one map's channels lie far from each other, the other's beside each other."""
    from polyattn.kernels.bilinear import naive
    from polyattn.kernels.bilinear.triton import block_cross, block_mix

    step, shape = 2**27, (1, 2, 4, 32)
    storage = torch.empty(32 * step, dtype=torch.float16, device=DEVICE)
    spread = storage.as_strided(shape, (32 * step, 4, 1, step))
    spread.copy_(torch.randn(shape))
    maps = {"x": torch.randn(shape, device=DEVICE).half(), "y": torch.randn(shape, device=DEVICE).half()} | {
        far: spread
    }
    assert blocks(1, 2, 2, maps["x"], maps["y"]).wide
    have = block_cross(maps["y"], maps["x"], 1, 2, 2, "ieee", Tile(16, 16, 16))
    assert distance(have, naive.block_cross(maps["y"], maps["x"], 1, 2, 2)) < 3e-3
    weights = torch.randn(1, 1, 4, 4, device=DEVICE).half()
    mixed = block_mix(spread[..., :31], weights, 2, 2, "ieee", Tile(16, 16, 16))
    assert distance(mixed, naive.block_mix(spread[..., :31], weights, 2, 2)) < 3e-3


@pytest.mark.parametrize("name", ["block_mix", "block_cross"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_offsets_of_64_bits_reach_the_same_elements(monkeypatch, name, layout):
    from polyattn.kernels.bilinear import triton

    monkeypatch.setattr(triton, "NARROW", 0)
    case, sizes = CASES[name], Sizes(u=2, v=4, d=16)
    inputs = tensors(case, sizes, torch.float32, layout)
    assert blocks(sizes.g, sizes.s, sizes.t, inputs["x"]).wide
    have = case.triton(sizes, Tile(16, 16, 16), *inputs.values())
    assert have.device.type == DEVICE
    assert distance(have, case.naive(sizes, *inputs.values())) < 2e-5
