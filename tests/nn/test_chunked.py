"""Layers on maps that come piece by piece."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import polyattn as pa
from tests.parallel.cases import made

SOME = (
    *("poly_nl", "e_nl softmax", "nl", "EfficientNL", "A2", "LatentGNN symmetric", "CGNL", "axial width"),
    "BATransform downsample",
)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_layer_piece_by_piece_is_the_layer_forward_and_backward(name: str, rows: int):
    layer = made(name, torch.float64)
    alone, generator = copy.deepcopy(layer), torch.Generator().manual_seed(0)
    x, seed = (torch.randn(2, 8, 7, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    whole, own = x.clone().requires_grad_(), x.clone().requires_grad_()
    wanted = alone(whole)
    wanted.backward(seed)
    y = pa.nn.chunked(layer, positions=4 * rows)(own)
    y.backward(seed)
    pairs = [(y, wanted), (own.grad, whole.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(layer.parameters(), alone.parameters(), strict=True)]
    pairs += list(zip(layer.buffers(), alone.buffers(), strict=True))
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_a_predictor_slides_over_a_map_that_comes_piece_by_piece():
    layer = pa.nn.BATransform(8, block_size=4, groups=2, downsample=True, larger_maps="slide").double()
    alone, x = copy.deepcopy(layer), torch.randn(2, 8, 11, 4, dtype=torch.float64)  # of 5 x 4 blocks
    assert layer.matrices(x)[0].shape == (2, 2, 5, 5)
    whole, own = x.clone().requires_grad_(), x.clone().requires_grad_()
    wanted, y = alone(whole), pa.nn.chunked(layer, positions=12)(own)
    torch.testing.assert_close(y, wanted)
    wanted.sin().sum().backward()
    y.sin().sum().backward()
    for mine, theirs in zip((own, *layer.parameters()), (whole, *alone.parameters()), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_files_are_streamed_into_files(tmp_path):
    shape, generator = (1, 8, 50), np.random.default_rng(0)
    maps = [np.memmap(tmp_path / f"{k}", np.float32, "w+", shape=shape) for k in range(4)]
    x, y, seed, dx = maps
    x[:], seed[:] = generator.standard_normal(shape), generator.standard_normal(shape)
    layer = pa.nn.Attention(pa.catalog.poly_nl(), 8, beta=1.0)
    streamed = pa.nn.chunked(layer, positions=16)
    assert streamed.stream(x, y) is y
    streamed.stream_backward(x, seed, dx)
    whole = torch.from_numpy(np.array(x)).requires_grad_()
    wanted = layer(whole)
    gradients = torch.autograd.grad(wanted, (whole, *layer.parameters()), torch.from_numpy(np.array(seed)))
    torch.testing.assert_close(torch.from_numpy(np.array(y)), wanted.detach())
    torch.testing.assert_close(torch.from_numpy(np.array(dx)), gradients[0], rtol=1e-4, atol=1e-5)
    for parameter, theirs in zip(layer.parameters(), gradients[1:], strict=True):
        torch.testing.assert_close(parameter.grad, theirs, rtol=1e-4, atol=1e-4)


def test_a_softmax_over_positions_stays_finite_whatever_the_values():
    generator = torch.Generator().manual_seed(0)
    options = {"sizes": {"R": 2, "V": 2}, "beta": 1.0, "generator": generator, "dtype": torch.float64}
    layer = pa.nn.Attention(pa.catalog.e_nl(softmax=True), 4, **options)
    x = 1e3 * torch.randn(1, 4, 9, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pa.nn.chunked(layer, 2)(x), layer(x))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (pa.nn.NonLocal(8), "compare every position"),
        (pa.nn.CrissCross(8), "softmax"),
        (pa.nn.BATBlock(16), "mix rows"),
        (pa.nn.BATBlock(16, dim=3, temporal_groups=2, temporal_size=2, downsample=True), "temporal"),
        (nn.Conv2d(8, 8, 3, padding=1), "neighbours"),
        (nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)), "not known"),
    ],
)
def test_what_compares_positions_of_several_pieces_is_refused_with_the_reason(layer: nn.Module, reason: str):
    with pytest.raises(pa.ShardingError, match=reason):
        pa.nn.chunked(layer)


def test_similarities_of_positions_are_refused_with_the_step_that_makes_them():
    layer = pa.nn.Attention(pa.catalog.nl(softmax=True), 8)
    with pytest.raises(pa.ShardingError, match="pairs every position with every other"):
        pa.nn.chunked(layer, 3)(torch.ones(1, 8, 7, 1))


def test_arrays_of_other_shapes_are_refused_before_anything_is_read():
    layer = pa.nn.chunked(pa.nn.PolyNL(4))
    with pytest.raises(pa.SizeError, match="differ"):
        layer.stream(np.zeros((1, 4, 3, 3), np.float32), np.zeros((1, 4, 3, 2), np.float32))


@pytest.mark.slow
def test_the_benchmark_of_large_files_runs_small_and_its_memory_does_not_grow_with_the_map(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", str(root / "benchmarks/chunked.py"), "--only", "poly_nl"]
    command += ["--gigabytes", "0.02", "0.06", "--positions", "8192", "--out", str(tmp_path / "out.json")]
    subprocess.run([*command, "--folder", str(tmp_path)], check=True, cwd=root, timeout=300, capture_output=True)
    small, large = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert max(small["off_by"], large["off_by"]) < 1e-4
    grown = large["backward"]["rss_anon"] - small["backward"]["rss_anon"]
    assert grown < 0.5 * (large["map_bytes"] - small["map_bytes"])
