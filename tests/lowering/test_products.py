"""Facts of matrix products: every way to compute a contraction computes the same, and little is copied."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Spec, catalog, lower, plan
from polyattn.lowering import emit, products
from polyattn.lowering.graphs import CHECKED, _lower, _lower_backward
from polyattn.lowering.products import ways
from polyattn.study.counted import run
from polyattn.testing import size_assignments, specification_texts
from tests.drawing import share
from tests.lowering.test_lowering import arguments, reference


def forced(turn: int, used: Counter):
    """A choice that takes one way after the other, beginning somewhere, whatever it costs."""
    state = [turn]

    def choose(node, left, right, length, wanted, long):
        found = [*ways(node, left, right, length), *ways(node, right, left, length)]
        way = found[state[0] % len(found)]
        state[0] += 1
        used.update({"fills": way.fills, "traces": way.traces, "sums after": bool(way.after), "plain": not way.tied})
        return way

    return choose


def check(spec: Spec, sizes: dict[str, int], turn: int, channels_first: bool, used: Counter) -> None:
    made = plan(spec, sizes, "training", batch=2)
    tensors = arguments(spec, made.sizes, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "choose", forced(turn, used))
        kept = () if made.backward is None else made.backward.kept
        forward = _lower.__wrapped__(made, channels_first, (), kept, False, CHECKED, ())[0]
        backward = (
            None if made.backward is None else _lower_backward.__wrapped__(made, channels_first, (), False, CHECKED, ())
        )
    y, *values = forward(*tensors)
    expected = torch.from_numpy(reference(spec, made.sizes, tensors, 2))
    torch.testing.assert_close(y.detach(), expected, rtol=1e-9, atol=1e-9)
    if backward is not None and y.requires_grad:
        seed = torch.randn(y.shape, dtype=torch.float64)
        mine = backward(seed, *(t.detach() for t in (*tensors, *values)))
        theirs = torch.autograd.grad(y, tensors, seed, allow_unused=True)
        for a, b in zip(mine, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@share(1.2)
@given(st.data(), st.integers(0, 50), st.booleans())
def test_every_way_computes_generated_specifications(data: st.DataObject, turn: int, channels_first: bool):
    spec = Spec(data.draw(specification_texts(functions=False)))
    sizes = data.draw(size_assignments(spec))
    check(spec, sizes, turn, channels_first, Counter())


def test_every_way_computes_the_catalogue_and_all_kinds_of_ways_are_tried():
    sizes = {"N": 6, "C": 4, "R": 3, "V": 3, "H": 4, "W": 6, "G": 2, "K": 3, "M": 2, "S": 2, "D": 4, "U": 2}
    used: Counter = Counter()
    for name in catalog.names("third_order"):
        spec = catalog.get(name)
        known = {n: sizes[n] for n in spec.sizes.names if n in sizes}
        if "U" in spec.sizes.names:
            known["V"] = 3
        for turn in range(5):
            check(spec, known, turn, bool(turn % 2), used)
    assert all(used[kind] > 5 for kind in ("fills", "traces", "sums after", "plain")), used


def test_no_matrix_above_the_bound_is_filled_up_or_made_for_its_diagonal(monkeypatch):
    made = plan(catalog.ba_transform_block(), {"H": 12, "W": 12, "S": 3, "C": 8, "G": 2, "K": 2, "B": 2}, "training")

    def largest() -> dict[str, int]:
        found = {"fills": 0, "traces": 0}

        def recorded(node, left, right, length, wanted, long):
            for way in (*ways(node, left, right, length), *ways(node, right, left, length)):
                if way.tied is not None:
                    kind, other = ("fills", way.inner) if way.fills else ("traces", way.rows)
                    found[kind] = max(found[kind], products.entries((*other, *way.columns), length))
            return products.choose(node, left, right, length, wanted, long)

        monkeypatch.setattr(emit, "choose", recorded)
        for channels_first in (False, True):
            _lower.__wrapped__(made, channels_first, (), made.backward.kept, False, CHECKED, ())
            _lower_backward.__wrapped__(made, channels_first, (), False, CHECKED, ())
        return found

    assert min(largest().values()) > 8**2
    monkeypatch.setattr(products, "LARGEST_FILLED", 8)
    assert max(largest().values()) <= 8**2


@pytest.mark.parametrize("name", ["poly_nl", "e_nl", "nl", "a2_net", "latent_gnn"])
def test_a_channels_first_map_is_not_copied(name: str):
    spec = catalog.get(name)
    known = {"N": 400, "C": 24, "R": 6, "V": 6}
    made = plan(spec, {n: known[n] for n in spec.sizes.names}, batch=2)
    x, *weights = (t.detach().float() for t in arguments(spec, made.sizes, 2))
    x = x.mT.contiguous().mT
    graph = lower(made, channels_first=True)
    with torch.profiler.profile(record_shapes=True) as profile:
        graph(x, *weights)
    copied = [e.input_shapes for e in profile.events() if e.name == "aten::copy_"]
    assert not [shapes for shapes in copied if any(torch.Size(s).numel() >= x.numel() for s in shapes)], copied


@pytest.mark.parametrize(("inside", "filled"), [(4, True), (16, False)])
def test_only_a_tiny_identity_is_multiplied_out(inside: int, filled: bool):
    """P_s ⊗ I: with 4 columns in a block the zeros are multiplied, with 16 no product is filled up."""
    sizes = {"H": 7 * inside, "W": 7 * inside, "S": 7, "C": 16, "G": 4, "K": 4, "B": 2}
    made = plan(catalog.ba_transform_block(), sizes)
    shapes = (2, 7 * inside, 7 * inside, 16), (16, 4), (4, 7, 7, 7, 4), (4, 7, 7, 7, 4)
    counted = run(lambda: lower(made, channels_first=True)(*(torch.empty(s, device="meta") for s in shapes)))[1]
    assert (counted.macs > made.macs) == filled
    assert counted.macs <= 2.6 * made.macs
