"""Ranks within budgets: against truncations of all tuples by plain numpy; ties and loose budgets do not enlarge."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.fitting import factorise
from polyattn.fitting.search import outside_boxes, tails
from tests.drawing import share

C = 3


def nl_core(seed: int, channels: int = C) -> np.ndarray:
    """NL's core: a similarity near rank one times a value of full rank, as in trained layers."""
    random = np.random.default_rng(seed)
    near = np.outer(*random.normal(size=(2, channels))) + 0.1 * random.normal(size=(channels, channels))
    return np.einsum("df,hb->bdfh", near, random.normal(size=(channels, channels)))


def symmetric(core: np.ndarray) -> np.ndarray:
    return (core + core.swapaxes(2, 3)) / 2


def error(found: np.ndarray, core: np.ndarray) -> float:
    return float(np.linalg.norm(symmetric(found - core)) / np.linalg.norm(symmetric(core)))


def truncated(core: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """The truncated higher-order SVD, modes in the order (d, f, h, b) of the ranks."""
    found = np.moveaxis(core, 0, -1)
    for k, r in enumerate(ranks):
        left = np.linalg.svd(np.moveaxis(np.moveaxis(core, 0, -1), k, 0).reshape(core.shape[0], -1))[0][:, :r]
        found = np.moveaxis(np.tensordot(left @ left.T, found, (1, k)), 0, k)
    return np.moveaxis(found, -1, 0)


def tucker_parameters(ranks: tuple[int, ...]) -> int:
    return C * sum(ranks) + prod(ranks)


@pytest.mark.parametrize("limit", [20, 30, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_truncation_within_the_parameters_is_nearer(seed: int, limit: int):
    core = nl_core(seed)
    found = factorise(core, "tucker_nl", max_params=limit, starts=1, iterations=20)
    assert tucker_parameters(found.ranks) == found.parameter_count <= limit
    for ranks in product(range(1, C + 1), repeat=4):
        if tucker_parameters(ranks) <= limit:
            assert found.error <= error(truncated(core, ranks), core) * (1 + 1e-6) + 1e-12, ranks


def test_no_truncation_within_the_multiply_accumulates_is_nearer():
    core, sizes = nl_core(2), {"N": 16}
    plain = pa.plan(pa.catalog.nl(), {"N": 16, "C": C}).macs
    found = factorise(core, "tucker_nl", max_macs=int(0.9 * plain), sizes=sizes, starts=1, iterations=20)
    assert found.macs <= 0.9 * plain
    for ranks in product(range(1, C + 1), repeat=4):
        if error(truncated(core, ranks), core) < 0.98 * found.error:
            spec = pa.catalog.tucker_nl(ranks=ranks, mean=False)
            assert pa.plan(spec, {**sizes, "C": C}).macs > 0.9 * plain, ranks


@pytest.mark.parametrize("family", ["tt_nl", "block_term_nl"])
def test_the_budget_is_split_freely_between_similarity_and_value(family: str):
    """No cut of the two matrices by plain SVDs that has as many parameters is nearer."""
    random = np.random.default_rng(3)
    near, value = np.outer(*random.normal(size=(2, 6))) + 0.1 * random.normal(size=(6, 6)), random.normal(size=(6, 6))
    core = np.einsum("df,hb->bdfh", near, value)

    def cut(matrix: np.ndarray, rank: int) -> np.ndarray:
        left, values, right = np.linalg.svd(matrix)
        return (left[:, :rank] * values[:rank]) @ right[:rank]

    found = factorise(core, family, max_params=12 * 7, starts=1)
    assert found.parameter_count <= 12 * 7
    for r in range(1, 7):
        plain = error(np.einsum("df,hb->bdfh", cut(near, r), cut(value, 7 - r)), core)
        assert found.error <= plain * (1 + 1e-9)


LOOSE = {"cp_nl": (2,), "tucker_nl": (2, 2, 2, 2), "tt_nl": (2, 2, 2), "block_term_nl": (1, 2, 2)}


@pytest.mark.parametrize("family", LOOSE)
@pytest.mark.parametrize(
    "budget", [{"max_params": 10_000}, {"max_macs": 10**9}, {"max_params": 5000, "max_macs": 10**9}]
)
def test_a_loose_budget_keeps_the_smallest_exact_ranks(family: str, budget: dict[str, int]):
    random = np.random.default_rng(0)
    u, v, w, o = random.normal(size=(4, 5, 2))
    # Block terms of one term are a similarity times a value; the others hold a sum of two products.
    core = (
        np.einsum("dr,fr,hs,bs->bdfh", u, v, w, o)
        if family == "block_term_nl"
        else np.einsum("dr,fr,hr,br->bdfh", u, v, w, o)
    )
    found = factorise(core, family, starts=2, iterations=50, **budget)
    assert found.error < 1e-6
    smallest = sum(p.size for p in factorise(core, family, rank=LOOSE[family]).parameters.values())
    assert found.parameter_count <= smallest


def test_a_share_is_the_budget_of_that_share_of_the_cores_entries():
    core = nl_core(0, 4)
    for rank in (0.2, 0.5):
        found = factorise(core, "tt_nl", rank=rank, starts=1)
        assert found.parameter_count <= rank * core.size
        assert found.ranks == factorise(core, "tt_nl", max_params=int(rank * core.size), starts=1).ranks
    for wrong in (0.0, 1.5, -0.1, float("nan")):
        with pytest.raises(pa.FittingError, match="share of the core's entries"):
            factorise(core, "tt_nl", rank=wrong)


def test_the_path_has_the_error_of_every_rank_that_was_tried():
    found = factorise(nl_core(0, 4), "tt_nl", max_error=0.2, starts=1, iterations=5)
    assert dict(found.path)[found.ranks] == found.error
    assert len(found.path) > 1
    assert factorise(nl_core(0), rank=1, starts=1, iterations=5).path[0][0] == (1,)


def test_an_error_is_reached_with_no_rank_that_can_be_lowered():
    core = nl_core(1, 4)
    found = factorise(core, "tucker_nl", max_error=0.1, starts=1, iterations=30)
    assert found.error <= 0.1
    for k in range(4):
        lower = tuple(r - (j == k) for j, r in enumerate(found.ranks))
        if min(lower) and lower[k] * 1 <= prod(lower) // lower[k]:
            assert error(truncated(core, lower), core) > 0.1


@share(0.5)
@given(st.integers(0, 1000), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_what_boxes_leave_out_is_their_complements_square(seed: int, shape: list[int]):
    core = np.random.default_rng(seed).normal(size=shape)
    found = outside_boxes(core)
    for corner in np.ndindex(*shape):
        rest = core.copy()
        rest[tuple(slice(0, c + 1) for c in corner)] = 0
        assert found[corner] == pytest.approx(float((rest**2).sum()), rel=1e-12, abs=1e-300)
    line = core.ravel()
    assert tails(line) == pytest.approx([float((line[k:] ** 2).sum()) for k in range(1, line.size + 1)], rel=1e-12)
