"""Canonical decompositions with many unknowns: as exact as with few, for factors that are nearly collinear, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn.fitting import cp, factorise
from polyattn.fitting.cp import _conjugate_gradients
from tests.drawing import share


def collinear(channels: int, rank: int, seed: int, cosine: float = 0.9) -> np.ndarray:
    """A core whose factors' columns have this cosine with each other: ALS needs thousands of steps."""
    random, factors = np.random.default_rng(seed), []
    for _ in range(4):
        base = random.normal(size=(channels, 1))
        base /= np.linalg.norm(base)
        rest = random.normal(size=(channels, rank))
        rest -= base * (base.T @ rest)
        rest /= np.linalg.norm(rest, axis=0)
        factors.append(np.sqrt(cosine) * base + np.sqrt(1 - cosine) * rest)
    return np.einsum("br,dr,fr,hr->bdfh", *factors)


def off(found: np.ndarray, core: np.ndarray) -> float:
    return float(
        np.linalg.norm(found - core + (found - core).swapaxes(2, 3)) / np.linalg.norm(core + core.swapaxes(2, 3))
    )


def test_collinear_factors_with_more_unknowns_than_a_matrix_is_made_for_are_found():
    core = collinear(12, 15, 0)
    assert cp.MOST_UNKNOWNS < 4 * 12 * 15
    found = factorise(core, rank=15, starts=2)
    assert found.error < 1e-9
    assert off(found.approximation, core) < 1e-9


@pytest.mark.parametrize("symmetry", ["pair", "shared", "none"])
def test_steps_by_conjugate_gradients_find_what_steps_by_a_matrix_find(symmetry: str, monkeypatch: pytest.MonkeyPatch):
    w = np.random.default_rng(0).normal(size=(4, 6, 3))
    core = np.einsum("br,dr,fr,hr->bdfh", w[0], w[1], w[2], w[2] if symmetry == "shared" else w[3])
    monkeypatch.setattr(cp, "MOST_UNKNOWNS", 0)
    found = factorise(core, rank=3, symmetry=symmetry, starts=3)
    assert found.error < 1e-9
    assert off(found.approximation, core) < 1e-9


@share(0.5)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_conjugate_gradients_solve_positive_definite_systems(seed: int, size: int):
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, size))
    matrix, right = root @ root.T + 0.1 * np.eye(size), random.normal(size=size)
    made = torch.from_numpy(matrix)
    found = _conjugate_gradients(lambda v: made @ v, torch.from_numpy(right), lambda v: v / made.diagonal())
    assert found is not None
    rest = np.linalg.norm(matrix @ found.numpy() - right)
    assert rest <= 1.01e-3 * np.linalg.norm(right)
