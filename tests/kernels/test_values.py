"""Every Triton kernel against its definition: any sizes, layouts, dtypes and tiles, in guarded memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polyattn.kernels.tuning import TORCH, Tile
from tests.drawing import share

from .cases import CASES, LAYOUTS, TOLERANCE, Sizes, distance, tensors
from .conftest import check

pytestmark = pytest.mark.interpreted

SIZES = st.builds(
    Sizes,
    b=st.integers(1, 2),
    n=st.sampled_from([1, 2, 8, 15, 17, 20, 33, 50]),
    c=st.sampled_from([1, 3, 16, 21, 40]),
    d=st.sampled_from([1, 5, 16, 35]),
    g=st.integers(1, 2),
    s=st.integers(1, 5),
    t=st.integers(1, 5),
    splits=st.integers(1, 3),
    u=st.integers(0, 2),
    v=st.sampled_from([0, 1, 2, 4, 8]),
)
SEVERAL_TILES = Sizes(n=50, c=40, d=35)
"""Three tiles across and down, the last ones in part outside, in two samples and two groups."""
TILES = st.sampled_from([Tile(16, 16, 16), Tile(32, 16, 16), Tile(16, 32, 32)])


@pytest.mark.parametrize("name", CASES)
@settings(share(0.2), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    sizes=SIZES,
    dtype=st.sampled_from(list(TOLERANCE)),
    layout=st.sampled_from(LAYOUTS),
    tile=TILES,
    seed=st.integers(0, 99),
)
@example(sizes=SEVERAL_TILES, dtype=torch.float32, layout="gaps", tile=Tile(16, 16, 16), seed=0)
def test_a_kernel_equals_its_definition(guarded, name, sizes, dtype, layout, tile, seed):
    case = CASES[name]
    inputs = tensors(case, sizes, dtype, layout, seed)
    guarded.clear()
    have = case.triton(sizes, tile, *inputs.values())
    check(guarded)
    assert distance(have, case.naive(sizes, *inputs.values())) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["gram", "cross_gram", "project", "project, a matrix each"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_s_own_products_which_tuning_may_choose_equal_the_definition(guarded, name, layout):
    case = CASES[name]
    inputs = tensors(case, Sizes(), torch.float32, layout)
    have = case.triton(Sizes(), TORCH, *inputs.values())
    check(guarded)
    assert distance(have, case.naive(Sizes(), *inputs.values())) < TOLERANCE[torch.float32]


def test_the_guards_catch_a_kernel_that_leaves_an_element_or_writes_beyond(guarded):
    from polyattn.kernels import runtime

    out = runtime.allocate((4,), torch.float32, torch.device("cpu"))
    with pytest.raises(AssertionError, match="not written"):
        check(guarded)
    out.fill_(1.0)
    check(guarded)
    out.as_strided((5,), (1,)).fill_(1.0)
    with pytest.raises(AssertionError, match="behind"):
        check(guarded)
    guarded[:] = [(torch.full((1024 + 1,), float("nan")), torch.ones(1))]
