"""Patterns of explicit tensors: what is found, that it adds up to the tensor, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import FittingError, catalog, symmetrise
from polyattn.algebra import ChannelCore
from polyattn.algebra.core import growth, standard
from polyattn.fitting import recognise
from tests.drawing import share

FLAT = ((0, 0, 1, 1),)
ONE = (0, 0, 0, 0)
CASES = {
    "nl": ({"N": 4, "C": 2}, [FLAT]),
    "poly_nl": ({"N": 2, "C": 2}, [FLAT]),
    "e_nl": ({"N": 3, "C": 2, "R": 1, "V": 2}, [FLAT]),
    "axial": ({"H": 2, "W": 3, "C": 2, "R": 1}, [((0, 0, 1, 1), ONE)]),
    "criss_cross": ({"H": 2, "W": 3, "C": 2, "R": 1}, [((0, 0, 1, 1), ONE), (ONE, (0, 0, 1, 1))]),
    "tesa": ({"H": 2, "W": 2, "C": 2, "R": 1}, [((0, 0, 1, 1), (0, 0, 1, 1)), ((0, 0, 1, 1), (0, 1, 0, 1))]),
}


def explicit(name, sizes, seed=0):
    spec, generator = catalog.get(name), np.random.default_rng(seed)
    known = spec.sizes.solve(sizes, spec.sizes.names)
    parameters = {n: generator.normal(size=[known[s] for s in shape]) for n, shape in spec.parameters.items()}
    return spec.interaction_tensor(sizes, parameters), len(spec.inputs["x"])


@pytest.mark.parametrize("symmetrised", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_catalogue_is_recognised_by_its_deltas_also_from_the_symmetrised_tensor(name, symmetrised):
    sizes, patterns = CASES[name]
    w, axes = explicit(name, sizes)
    found = recognise(symmetrise(w, axes) if symmetrised else w, axes)
    assert sorted(c.pattern for c in found.components) == sorted(patterns)
    assert found.residual < 1e-12
    assert {*found.blocks} == {1}
    np.testing.assert_allclose(symmetrise(found.tensor(), axes), symmetrise(w, axes), atol=1e-12)


@pytest.mark.parametrize("name", [*CASES, "ba_transform", "ba_transform_block"])
def test_the_rebuilt_specification_has_the_tensor(name):
    blocks = {"ba_transform": {"H": 2, "W": 3, "G": 1, "M": 1, "K": 1}}
    blocks["ba_transform_block"] = {"S": 2, "U": 3, "V": 1, "G": 1, "M": 1, "K": 1}
    sizes = CASES[name][0] if name in CASES else blocks[name]
    w, axes = explicit(name, sizes)
    spec, parameters = recognise(w, axes).rebuild()
    lengths = dict(zip(next(iter(spec.inputs.values())), w.shape, strict=False))
    again = spec.interaction_tensor(lengths, parameters)
    np.testing.assert_allclose(symmetrise(again, axes), symmetrise(w, axes), atol=1e-12)


def test_blocks_are_found_with_the_fewest_that_the_weights_need():
    w, _ = explicit("ba_transform_block", {"S": 2, "U": 3, "V": 2, "G": 1, "M": 1, "K": 1})
    found = recognise(w, 3)
    assert found.blocks == (2, 2)
    assert found.lengths == (3, 2)
    np.testing.assert_allclose(symmetrise(found.tensor(), 3), symmetrise(w, 3), atol=1e-13)


def test_weights_for_single_rows_and_columns_are_recognised_by_what_is_pooled():
    w, _ = explicit("ba_transform", {"H": 2, "W": 3, "G": 1, "M": 2, "K": 1})
    found = recognise(w, 3)
    assert found.blocks == (2, 3)
    assert found.constant == (("x1", 1), ("x3", 0))


@share(0.5)
@given(st.data())
def test_any_sum_of_deltas_times_cores_is_taken_apart(data):
    """Four positions, so that all fifteen ways to tie four modes are independent."""
    ties = st.tuples(*[st.integers(0, 3)] * 4).map(growth)
    patterns = data.draw(st.lists(ties, min_size=1, max_size=3, unique=True))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    parts = [standard((p,), generator.normal(size=(2,) * 4)) for p in patterns]
    w = sum(ChannelCore(p, c).tensor((4,)) for p, c in parts)
    found = recognise(w)
    assert {c.pattern for c in found.components} == {p for p, _ in parts}
    np.testing.assert_allclose(found.tensor(), w, atol=1e-11)


def test_noise_is_the_residual():
    w, _ = explicit("nl", {"N": 3, "C": 2})
    noise = np.random.default_rng(1).normal(size=w.shape) * 1e-5 * np.abs(w).max()
    found = recognise(w + noise, tolerance=1e-2)
    assert [c.pattern for c in found.components] == [FLAT]
    assert 0.8 < found.residual / (np.linalg.norm(noise) / np.linalg.norm(w)) < 2
    assert np.linalg.norm(symmetrise(found.tensor() - w)) < np.linalg.norm(noise)


def test_a_tensor_without_a_pattern_is_refused_with_what_was_found():
    w = np.random.default_rng(0).normal(size=(3, 2) * 4)
    with pytest.raises(FittingError, match=r"none of the known patterns.*positions alike leave 9\d\.\d % of its norm"):
        recognise(w)
    with pytest.raises(FittingError, match="it has no pattern"):
        recognise(np.zeros((3, 2) * 4))
    with pytest.raises(
        FittingError, match=r"1 of 1296 entries are not finite, the first at \(0, 0, 0, 0, 0, 0, 0, 1\)"
    ):
        recognise(np.where(np.arange(w.size).reshape(w.shape) == 1, np.inf, w))
    with pytest.raises(FittingError, match=r"found order 3, shape \(2, 2, 2\)"):
        recognise(np.ones((2, 2, 2)))
