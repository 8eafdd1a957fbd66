"""Bounds of a layer's error hold for the cores that make it largest, and are those of their formulas by loops."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from polyattn.fitting.bounds import nl_bound, output_bound, pattern_bound
from polyattn.fitting.compression import Candidate, Compression
from polyattn.fitting.position_pattern import Layout


def layer(core: np.ndarray, pattern: tuple[int, ...], x: np.ndarray, scale: float) -> np.ndarray:
    """The output (N, C) of a core at one axis of positions, by a loop over all positions of the output and the x's."""
    n = len(x)
    y = np.zeros((n, core.shape[0]))
    for places in product(range(n), repeat=len(pattern)):
        if all(places[a] == places[b] for a, b in product(range(len(pattern)), repeat=2) if pattern[a] == pattern[b]):
            term = core
            for place in places[1:]:
                term = np.tensordot(term, x[place], (1, 0))
            y[places[0]] += scale * term
    return y


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_the_bound_at_nls_positions_holds_and_is_reached_by_one_direction(alike: bool, mean: bool):
    """With one entry of the core and equal positions every norm is that of a number."""
    rng = np.random.default_rng(0)
    x = np.ones((4, 1)) * [[1.5, 0.0]] if alike else rng.normal(size=(4, 2))
    core = np.zeros((2, 2, 2, 2))
    core[0, 0, 0, 0] = 2.0
    core = core if alike else rng.normal(size=core.shape)
    norm = np.linalg.norm(layer(core, (0, 0, 1, 1), x, 1 / 4 if mean else 1.0))
    bound = nl_bound(core, x, mean)
    assert norm <= bound * (1 + 1e-9)
    if alike:
        assert bound == pytest.approx(norm)


def test_the_bound_by_the_outputs_unfolding_takes_all_of_x():
    """y = x <M, G> at positions in different directions, with M along G: both unfoldings' bounds are y's own norm."""
    core, x = np.einsum("bd,fh->bdfh", np.eye(4), np.eye(4) / 2), np.eye(4)
    assert np.linalg.norm(layer(core, (0, 0, 1, 1), x, 1.0)) == pytest.approx(4)
    assert nl_bound(core, x, False) == pytest.approx(4)


@pytest.mark.parametrize("pattern", [(0, 0, 0), (0, 1, 1), (0, 0, 1), (0, 1, 2), (0, 1, 1, 1)])
@pytest.mark.parametrize("powers", [(), (("N", 1),), (("N", -1),)])
def test_the_bound_at_any_positions_holds_and_is_reached_by_one_direction(pattern, powers):
    layout = Layout((pattern,), (1,), ((),) * len(pattern), powers)
    modes = len(pattern)
    scale = 4.0 ** sum(e for _, e in powers)
    core = np.zeros((2,) * modes)
    core[(0,) * modes] = 2.0
    for x, delta in ((np.ones((4, 1)) * [[1.5, 0.0]], core), (np.random.default_rng(1).normal(size=(4, 2)), core)):
        norm = np.linalg.norm(layer(delta, pattern, x, scale))
        assert norm <= pattern_bound(delta, layout, x) * (1 + 1e-9)
    assert pattern_bound(core, layout, np.ones((4, 1)) * [[1.5, 0.0]]) == pytest.approx(
        np.linalg.norm(layer(core, pattern, np.ones((4, 1)) * [[1.5, 0.0]], scale))
    )


@pytest.mark.parametrize("pattern", [(0, 0, 1, 1), (0, 1, 1)])
def test_bounds_of_samples_add_up_as_squares(pattern):
    layout = Layout((pattern,), (1,), ((),) * len(pattern), ())
    core = np.random.default_rng(2).normal(size=(2,) * len(pattern))
    batch = np.random.default_rng(3).normal(size=(3, 4, 2))
    single = [output_bound(core, layout, sample) for sample in batch]
    assert output_bound(core, layout, batch) == pytest.approx(sum(b**2 for b in single) ** 0.5)


def test_each_layer_has_a_front_of_its_own():
    def candidate(layer: str, macs: int, after: float) -> Candidate:
        costs = cast(Any, SimpleNamespace(macs=macs))
        return Candidate(layer, "cp_nl", costs, nn.Identity(), 100, 10, 1.0, after, None, None)

    candidates = tuple(candidate(*c) for c in [("a", 10, 0.1), ("a", 20, 0.2), ("b", 30, 0.3), ("b", 40, 0.25)])
    front = Compression(candidates, nn.Identity(), None, None).pareto()
    assert [(c.layer, c.macs) for c in front] == [("a", 10), ("b", 30), ("b", 40)]
