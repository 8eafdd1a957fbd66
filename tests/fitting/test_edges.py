"""Edges of fits: cores whose layer is zero, outputs without an x, numbers of any type, results in one line."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import polyattn as pa
from polyattn import FittingError
from polyattn.fitting import factorise, factorise_polynomial, recognise
from tests.fitting.test_scale import random_core

PATTERNS = [(0, 1, 1, 1), (0, 1, 1, 2), (0, 1, 2, 3), (0, 0, 1, 1), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 1, 2)]


def loops(core: np.ndarray, pattern: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    n = len(x)
    y = np.zeros((n, len(core)))
    for places in product(range(n), repeat=4):
        if all(places[a] == places[b] for a, b in product(range(4), repeat=2) if pattern[a] == pattern[b]):
            y[places[0]] += np.einsum("bdfh,d,f,h->b", core, *(x[p] for p in places[1:]))
    return y


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_degree_three_is_rebuilt_and_factored(pattern: tuple[int, ...]):
    """The output of some is tied to no x: it is the same at all positions."""
    random = np.random.default_rng(0)
    core, x = random.normal(size=(2,) * 4), random.normal(size=(4, 2))
    deltas = np.zeros((4,) * 4)
    for places in product(range(4), repeat=4):
        deltas[places] = all(places[a] == places[b] for a, b in product(range(4), repeat=2) if pattern[a] == pattern[b])
    tensor = np.einsum("aceg,bdfh->abcdefgh", deltas, core)
    spec, parameters = recognise(tensor).rebuild()
    np.testing.assert_allclose(spec.evaluate({"x": x, **parameters}), loops(core, pattern, x), atol=1e-9)
    found = factorise_polynomial([tensor], "tt_nl", max_error=1e-9)
    np.testing.assert_allclose(found.spec.evaluate({"x": x, **found.parameters}), loops(core, pattern, x), atol=1e-7)
    assert pa.Spec(str(found.spec)) == found.spec


def test_outputs_without_an_x_keep_the_blocks_of_the_others():
    tensor = np.einsum("bdfh,o->bodfh", np.random.default_rng(0).normal(size=(2,) * 4), np.ones(4))
    tensor = (
        np.einsum("bodfh,pqr->obpdqfrh", tensor, np.ones((4,) * 3))
        * np.repeat([1.0, 2.0], 2)[:, None, None, None, None, None, None, None]
    )
    spec, parameters = recognise(tensor).rebuild()
    x = np.random.default_rng(1).normal(size=(4, 2))
    wanted = np.einsum("obpdqfrh,pd,qf,rh->ob", tensor, x, x, x)
    np.testing.assert_allclose(spec.evaluate({"x": x, **parameters}), wanted, atol=1e-9)


def test_a_core_that_the_layer_does_not_depend_on_is_refused():
    core = random_core()
    odd = core - core.swapaxes(2, 3)
    for family in ("cp_nl", "tucker_nl", "tt_nl", "block_term_nl"):
        with pytest.raises(FittingError, match="antisymmetric over exchangeable x's, so the layer is zero"):
            factorise(odd * 1e-30, family, max_error=0.5)
    assert factorise(odd, "tt_nl", rank=(4, 16, 4), symmetry="none").error < 1e-12


@pytest.mark.parametrize("kind", [int, np.int64, np.int8, np.uint16])
def test_ranks_are_whole_numbers_of_any_type(kind: Any):
    core = random_core()
    assert factorise(core, rank=kind(2), starts=1, iterations=3).ranks == (2,)
    for several in (tuple, list, np.array):
        found = factorise(core, "tt_nl", rank=several([kind(2), kind(1), kind(2)]))
        assert found.ranks == (2, 1, 2)
        assert all(type(r) is int for r in found.ranks)


WRONG = {
    "`rank` of cp_nl is positive whole numbers, or the share of the core.*; found 2.5": {"rank": 2.5},
    "`rank` of cp_nl is positive whole numbers; found True": {"rank": True},
    "`rank` of cp_nl is positive whole numbers; found '2'": {"rank": "2"},
    "`max_error` is a number; found nan": {"max_error": float("nan")},
    "`max_macs` is a number; found nan": {"max_macs": np.nan},
    "`max_params` is a number; found '7'": {"max_params": "7"},
    "`starts` is a whole number from 1; found 0": {"rank": 1, "starts": 0},
    "`iterations` is a whole number from 0; found -1": {"rank": 1, "iterations": -1},
    "`core` has real numbers; found torch.complex64": {"core": torch.ones(2, 2, 2, 2) * 1j, "rank": 1},
}


@pytest.mark.parametrize("message", WRONG)
def test_numbers_out_of_range_are_refused_by_name(message: str):
    options = {"core": random_core(), **WRONG[message]}
    with pytest.raises(FittingError, match=message):
        factorise(options.pop("core"), **options)


def test_results_are_shown_in_one_line():
    found = factorise(random_core(), rank=1, starts=1, iterations=3)
    whole = factorise_polynomial([recognise(np.ones((2,) * 8))], rank=1, starts=1)
    for value in (found, whole, whole.parts[0], recognise(np.ones((2,) * 8))):
        assert len(repr(value)) < 300
        assert "\n" not in repr(value)
    assert repr(found).startswith("Factorisation(cp_nl of rank 1: relative error")


def test_settings_are_options_by_name_and_slips_are_refused():
    core = np.ones((2, 2, 2, 2))
    with pytest.raises(FittingError, match=r"`start` is not an argument of `factorise`.* did you mean `starts`"):
        pa.fitting.factorise(core, rank=1, start=2)  # pyright: ignore[reportCallIssue]
    with pytest.raises(FittingError, match=r"`step` is not an argument of `compress`.* did you mean `steps`"):
        pa.fitting.compress(pa.nn.NonLocal(4), torch.ones(8, 4, 3, 3), step=1)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    "layer", [pa.nn.NonLocal(256, similarity="dot_product"), pa.nn.Attention(pa.catalog.nl(), 128)]
)
def test_layers_too_wide_for_a_core_are_refused_before_it_is_formed(layer: torch.nn.Module):
    with pytest.raises(FittingError, match=r"GiB, and fits form it whole: they take layers of up to 107 channels"):
        pa.fitting.trained_layer(layer)
