"""Fits and bounds are the same, scaled, for cores and data of any magnitude, and bounds cover rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn import FittingError
from polyattn.fitting import factorise, factorise_polynomial, recognise
from polyattn.fitting.scaling import normalised, times_power
from tests.drawing import share

C = 4
RANKS = {"cp_nl": 2, "tucker_nl": (2, 2, 2, 2), "tt_nl": (2, 2, 2), "block_term_nl": (1, 2, 2)}


def random_core(seed: int = 0) -> np.ndarray:
    """A core that every family holds at its rank: each factor of a similarity times a value."""
    w = np.random.default_rng(seed).normal(size=(4, C, 2))
    return np.einsum("dr,fr,hs,bs->bdfh", *w)


def exact(factors: list[np.ndarray], equation: str) -> list[Fraction]:
    """Entries of an einsum in exact arithmetic, so at any magnitude."""
    whole = [np.vectorize(Fraction, otypes=[object])(f) for f in factors]
    return list(np.einsum(equation, *whole, optimize=False).ravel())


LAYER = {
    "cp_nl": "dr,fr,hr,rb->bdfh",
    "tucker_nl": "dr,fs,ht,rstu,ub->bdfh",
    "tt_nl": "dr,rfs,sht,tb->bdfh",
    "block_term_nl": "gdr,gfr,ghs,gsb->bdfh",
}


@share(0.3)
@given(st.sampled_from(sorted(RANKS)), st.integers(-150, 150), st.sampled_from(["pair", "none"]))
def test_a_core_times_any_power_of_ten_has_the_error_of_the_core(family: str, power: int, symmetry: str):
    rank = 4 if family == "cp_nl" else RANKS[family]
    core = random_core()
    options = {"rank": rank, "symmetry": symmetry, "starts": 1, "iterations": 20}
    plain = factorise(core, family, **options)
    found = factorise(core * 10.0**power, family, **options)
    assert found.error == pytest.approx(plain.error, rel=1e-3, abs=1e-9)
    # The parameters' own product, in exact arithmetic: no error measured by the library is trusted.
    made = exact(list(found.parameters.values()), LAYER[family])
    wanted = np.vectorize(Fraction, otypes=[object])(core * 10.0**power)
    made = np.array(made, dtype=object).reshape(core.shape)
    off, whole = made - wanted, wanted
    if symmetry == "pair":
        off, whole = (t + t.swapaxes(2, 3) for t in (off, whole))
    share_ = float(sum(v * v for v in off.ravel()) / sum(v * v for v in whole.ravel())) ** 0.5
    assert share_ == pytest.approx(found.error, rel=1e-3, abs=1e-11)


@pytest.mark.parametrize("family", RANKS)
def test_a_core_in_lower_precision_is_that_core(family: str):
    core = random_core().astype(np.float32)
    plain = factorise(core.astype(float), family, rank=RANKS[family], starts=1, iterations=20)
    for given_ in (core, torch.tensor(core), torch.tensor(core, requires_grad=True)):
        assert factorise(given_, family, rank=RANKS[family], starts=1, iterations=20).error == plain.error
    half = torch.tensor(core, dtype=torch.bfloat16)
    assert factorise(half, "tt_nl", rank=(4, 16, 4), symmetry="none").error < 1e-12
    np.testing.assert_array_equal(factorise(half, "tt_nl", rank=(2, 2, 2)).core, half.float().numpy())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("power", [-150, -20, -2, 3, 150])
def test_moments_of_data_times_any_power_of_ten_give_the_same_layer(power: int, bias: bool):
    random = np.random.default_rng(1)
    core, scale = random.normal(size=(C,) * 4), 10.0**power
    x = random.normal(size=(50, C)) @ random.normal(size=(C, C)) + 0.3
    x[:, 1] = 0  # a dead channel
    if bias:
        # A layer whose weights undo the data's scale: the same function of the scaled data.
        core = random.normal(size=(C, C + 1, C + 1, C + 1))
        if abs(power) > 20:
            return  # products of three such features are no floats beside the constant 1
    width, features = core.shape[1], np.arange(core.shape[1]) < C
    weight = np.where(features, 1 / scale, 1.0)
    moved = core * weight[:, None, None] * weight[:, None] * weight if bias else core
    rows = np.concatenate([x, np.ones((50, 1))], 1) if bias else x
    moments = rows.T @ rows / 50
    stretched = moments * np.outer(1 / weight, 1 / weight)
    plain = factorise(core, "tt_nl", rank=(2, 3, 2), moments=moments)
    found = factorise(moved, "tt_nl", rank=(2, 3, 2), moments=stretched)
    assert found.error == pytest.approx(plain.error, rel=1e-6)
    assert width == found.approximation.shape[1]
    # The share of the mean square of the output for independent x's, from the moments themselves.
    undone = (weight[:, None, None] * weight[:, None] * weight) if bias else 10.0**0
    back = found.approximation / undone

    def square(t: np.ndarray) -> float:
        t = t + t.swapaxes(2, 3)
        return float(np.einsum("bdfh,bikl,di,fk,hl->", t, t, moments, moments, moments, optimize="greedy"))

    assert (square(back - core) / square(core)) ** 0.5 == pytest.approx(found.error, rel=1e-3)


@share(0.5)
@given(st.integers(-95, 95), st.integers(-95, 95), st.booleans(), st.integers(0, 50))
def test_a_bound_scales_with_the_core_and_with_the_cube_of_the_data(core: int, data: int, mean: bool, seed: int):
    w, x = np.random.default_rng(seed).normal(size=(C,) * 4), np.random.default_rng(seed).normal(size=(5, C))
    plain = factorise(w, "tt_nl", rank=(1, 1, 1), mean=mean, iterations=2).bound(x)
    found = factorise(w * 10.0**core, "tt_nl", rank=(1, 1, 1), mean=mean, iterations=2).bound(x * 10.0**data)
    log = np.log10(plain) + core + 3 * data
    assert log < -324 or log > 308 or np.log10(found) == pytest.approx(log, abs=1e-3)
    assert found > 0


@share(0.5)
@given(st.integers(0, 1000), st.sampled_from(sorted(RANKS)), st.sampled_from([np.float64, np.float32]))
def test_an_exact_layer_evaluated_in_floats_stays_within_its_bound(seed: int, family: str, dtype: type):
    random = np.random.default_rng(seed)
    core = random_core(seed)
    rank = 4 if family == "cp_nl" else RANKS[family]
    found = factorise(core, family, rank=rank, starts=2)
    x = (random.normal(size=(random.integers(1, 40), C)) * 10 + 3).astype(dtype)
    low = [p.astype(dtype) for p in (*found.parameters.values(), core)]
    *sides, whole = low
    letters = LAYER[family].split("->")[0]
    y = np.einsum(f"{letters},ad,ef,eh->ab", *sides, x, x, x, optimize="greedy")
    wanted = np.einsum("bdfh,ad,ef,eh->ab", whole, x, x, x, optimize="greedy")
    assert y.dtype == dtype
    assert np.linalg.norm(y.astype(float) - wanted) <= found.bound(x)


def test_a_map_read_as_a_batch_and_a_batch_read_as_a_map_are_both_bounded():
    random = np.random.default_rng(0)
    found = factorise(random.normal(size=(C,) * 4), "tt_nl", rank=(2, 2, 2))
    x = random.normal(size=(4, 4, C))

    def off(rows: np.ndarray) -> float:
        return float(np.linalg.norm(np.einsum("bdfh,ad,ef,eh->ab", found.approximation - found.core, rows, rows, rows)))

    as_map, as_batch = off(x.reshape(16, C)), float(np.linalg.norm([off(s) for s in x]))
    assert as_map > as_batch
    assert found.bound(x) >= as_map
    assert as_map <= found.bound(x, batched=False) == found.bound(x.reshape(16, C))
    assert as_batch <= found.bound(x, batched=True) < as_map
    assert found.bound(torch.tensor(x, requires_grad=True)) == found.bound(x)
    for wrong, message in (
        (x[..., :3], r"has the shape \(N, 4\) or, as a batch, \(B, N, 4\); found \(4, 4, 3\)"),
        (x[0, 0], r"found \(4,\)"),
        (x * np.nan, "`x` is to be finite"),
        (x[:0], r"found \(0, 4, 4\)"),
        (x * 1j, "real numbers"),
    ):
        with pytest.raises(FittingError, match=message):
            found.bound(wrong)
    with pytest.raises(FittingError, match="with batched=True"):
        found.bound(x[0], batched=True)


@share(0.5)
@given(st.integers(-150, 150))
def test_recognised_and_factored_sums_do_not_depend_on_the_scale(power: int):
    random = np.random.default_rng(0)
    third, first = random.normal(size=(2,) * 4), random.normal(size=(2, 2))
    eye = np.eye(2)
    tensor = np.einsum("ac,eg,bdfh->abcdefgh", eye, eye, third) * 10.0**power
    found = recognise(tensor)
    assert found.residual < 1e-12
    np.testing.assert_allclose(found.tensor(), tensor, rtol=1e-12, atol=1e-13 * np.abs(tensor).max())
    line = np.einsum("ac,bd->abcd", eye, first) * 10.0**power
    both = factorise_polynomial([tensor, line], "tt_nl", rank={3: (1, 1, 1), 1: (1,)})
    plain = factorise_polynomial([tensor / 10.0**power, line / 10.0**power], "tt_nl", rank={3: (1, 1, 1), 1: (1,)})
    assert both.error == pytest.approx(plain.error, rel=1e-9)


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda v: v == 0 or abs(v) > 1e-300))
def test_a_power_of_two_is_taken_out_and_put_back_exactly(value: float):
    array, k = normalised(np.array([value]))
    assert value == 0 or 0.5 <= abs(array[0]) < 1
    assert times_power(array, k)[0] == value
