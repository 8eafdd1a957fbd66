"""Maxima, minima, sums and means over windows: against loops, in values, gradients, ties and memory."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import polyattn as pa
from polyattn.planning import Apply
from tests.neighbourhoods import Axis, declarations, has_places

LETTERS = ("iuH", "jvW", "ksD")


@st.composite
def windows(draw) -> tuple[Axis, ...]:
    """Windows along one to three axes, each with a place within the map."""
    found = []
    for letter, offset, size in LETTERS[: draw(st.integers(1, 3))]:
        stride, step = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (1, -1), (3, 2), (2, -1)]))
        least = draw(st.integers(-2, 0))
        greatest = least + draw(st.integers(0, 2))
        length, places, start = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(-1, 1))
        found.append(Axis(letter, offset, size, length, places, stride, step, start, least, greatest))
    return tuple(found)


def text_of(function: str, axes: tuple[Axis, ...], argument: str = "x[{}]") -> str:
    sizes, at, places, offsets = (",".join(getattr(a, n) for a in axes) for n in ("size", "text", "letter", "offset"))
    return f"x[{sizes},C]; {declarations(axes)}y[{places},c] = {function}[{offsets}]({argument.format(at + ',c')})"


def sizes_of(axes: tuple[Axis, ...]) -> dict[str, int]:
    return {a.size: a.length for a in axes} | {f"{a.size}2": a.places for a in axes} | {"C": 2}


def loops(function: str, axes: tuple[Axis, ...], x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the gradient; that of an extreme goes to its places in equal parts."""
    y, dx = np.zeros((*(a.places for a in axes), 2)), np.zeros_like(x)
    for at in product(*(range(a.places) for a in axes)):
        for c in range(2):
            places = []
            for us in product(*(range(a.count) for a in axes)):
                place = tuple(a.position(i, u) for a, i, u in zip(axes, at, us, strict=True))
                if None not in place:
                    places.append((*place, c))
            values = [x[p] for p in places]
            if not values:
                continue
            best = {"max": max, "min": min}.get(function)
            y[(*at, c)] = best(values) if best else sum(values) / (len(values) if function == "mean" else 1)
            chosen = [p for p in places if best is None or x[p] == best(values)]
            for p in chosen:
                dx[p] += dy[(*at, c)] / (1 if function == "sum" else len(chosen))
    return y, dx


@settings(max_examples=8)
@given(windows(), st.sampled_from(["max", "min", "mean", "sum"]), st.integers(0, 99), st.booleans())
def test_windows_and_their_gradients_are_the_loops(axes: tuple[Axis, ...], function: str, seed: int, planned: bool):
    if function in ("max", "min") and not has_places(axes):
        function = "mean"
    rng = np.random.default_rng(seed)
    # Few numbers: many ties.
    x = rng.integers(-1, 2, (*(a.length for a in axes), 2)).astype(float)
    dy = rng.standard_normal((*(a.places for a in axes), 2))
    text, sizes = text_of(function, axes), sizes_of(axes)
    layer = pa.nn.Layer(text, sizes, objective="training" if planned else "forward")
    leaf = torch.tensor(x[None], requires_grad=True)
    value = layer(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, torch.tensor(dy[None]))
    y, dx = loops(function, axes, x, dy)
    np.testing.assert_allclose(value.detach().numpy()[0], y, atol=1e-12)
    np.testing.assert_allclose(gradient.numpy()[0], dx, atol=1e-12)


@pytest.mark.parametrize("function", ["max", "min"])
@pytest.mark.parametrize("objective", ["forward", "training"])
def test_ties_share_the_gradient_in_equal_parts(function: str, objective: str):
    axes = (Axis("i", "u", "H", 4, 3, 1, 1, 0, -1, 1), Axis("j", "v", "W", 4, 2, 2, 1, 0, -1, 1))
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 2, (4, 4, 2)).astype(float), rng.standard_normal((3, 2, 2))
    layer = pa.nn.Layer(text_of(function, axes), sizes_of(axes), objective=objective)
    leaf = torch.tensor(x[None], requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(leaf), leaf, torch.tensor(dy[None]))
    np.testing.assert_allclose(gradient.numpy()[0], loops(function, axes, x, dy)[1], atol=1e-12)


@settings(max_examples=3)
@given(windows(), st.sampled_from(["max", "min"]), st.integers(0, 99))
def test_transforms_see_the_same_function(axes: tuple[Axis, ...], function: str, seed: int):
    if not has_places(axes):
        return
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (*(a.length for a in axes), 2)).astype(float)
    dy = rng.standard_normal((*(a.places for a in axes), 2))
    y, dx = loops(function, axes, x, dy)
    for objective in ("forward", "training"):
        layer = pa.nn.Layer(text_of(function, axes), sizes_of(axes), objective=objective)
        made: Any = torch.func.vjp(layer, torch.tensor(x[None]))
        value, pull = made
        np.testing.assert_allclose(value.numpy()[0], y)
        np.testing.assert_allclose(pull(torch.tensor(dy[None]))[0].numpy()[0], dx, atol=1e-12)
        # Towards dy of the gradient: the transpose, in forward mode.
        dot = torch.func.jvp(layer, (torch.tensor(x[None]),), (torch.tensor(dx[None]),))[1]
        assert abs(float((dot[0] * torch.tensor(dy)).sum()) - float((dx * dx).sum())) < 1e-9


POOLED = "x[H,W,C]; where u, v : -1..1; y[i,j,c] = {}[u,v](x[i+u,j+v,c])"


class Largest(TorchDispatchMode):
    """The most entries of a tensor that an operation returned."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                # A view of a few entries may have many: what counts is memory.
                self.most = max(self.most, one.untyped_storage().nbytes() // one.element_size())
        return made


@pytest.mark.parametrize("function", ["max", "min", "mean", "sum"])
@pytest.mark.parametrize("objective", ["forward", "training"])
def test_no_tensor_is_written_once_for_each_offset(function: str, objective: str):
    layer = pa.nn.Layer(POOLED.format(function), {"H": 16, "W": 16, "C": 8}, objective=objective)
    x = torch.randn(2, 16, 16, 8, requires_grad=True)
    with Largest() as seen:
        layer(x).sum().backward()
    # A border of one place on each side at most.
    assert seen.most <= 18 * 18 * 16


@pytest.mark.parametrize("function", ["max", "min"])
def test_second_derivatives_are_those_of_a_linear_map(function: str):
    layer = pa.nn.Layer(POOLED.format(function), {"H": 3, "W": 3, "C": 1})
    x = torch.randn(1, 3, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_sixteen_bits_and_maps_with_the_channels_first_are_torchs_pooling():
    layer = pa.nn.Layer(POOLED.format("max"), {"H": 6, "W": 5, "C": 4})
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        first = torch.randn(2, 4, 6, 5).to(dtype)
        expected = functional.max_pool2d(first.float(), 3, 1, 1).to(dtype)
        assert torch.equal(layer(first.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), expected)


def extremes(text: str, sizes: dict[str, int]) -> list[Apply]:
    return [n for n in pa.plan(text, sizes).nodes if isinstance(n, Apply) and n.function in ("max", "min")]


def test_only_a_windows_own_bounds_leave_places_out():
    """Zeros of a definition outside of its map, other conditions, and other arguments are no windows of a tensor."""
    sizes = {"N": 4, "C": 1}
    (plain,) = extremes("x[N,C]; where u : -1..1; y[i,c] = max[u](x[i+u,c])", sizes)
    assert plain.relations
    x = torch.tensor([-3.0, -1.0, -2.0, -4.0])
    cases = {
        # A window that has the zeros around the map.
        "x[N,C]; where u : -1..1; z[i,u,c] = x[i+u,c]; y[i,c] = max[u](z[i,u,c])": [0, -1, -1, 0],
        "x[N,C]; where u : -1..1; y[i,c] = max[u](x[i+u,c]*[u <= 0])": [0, 0, 0, -2],
        "x[N,C]; where u : -1..1; y[i,c] = max[u](x[i+u,c] - x[i,c])": [2, 0, 1, 2],
        "x[N,C]; where u : -1..1; y[i,c] = max[u](-2*x[i+u,c])": [6, 6, 8, 8],
        "x[N,C]; where u : 0..1; y[i,c] = max[u](x[i-u,c])": [-3, -1, -1, -2],
        "x[N,C]; where u, v : 0..1; y[i,c] = max[u,v](x[i-u-v,c])": [-3, -1, -1, -1],
    }
    for text, expected in cases.items():
        for objective in ("forward", "training"):
            found = pa.lower(pa.plan(text, sizes, objective))(x.reshape(1, 4, 1))
            assert found.flatten().tolist() == expected, text


def test_a_mean_over_a_window_has_no_product_with_its_bounds():
    plan = pa.plan(POOLED.format("mean"), {"H": 8, "W": 8, "C": 8})
    assert plan.macs < 2 * prod((8, 8, 8))
    assert "window" in [s.operation for s in plan.steps]
