"""Facts of the memory that plans promise: the counts, against torch's own record of its allocator on the processor."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says when it starts and stops, every time

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from polyattn import BudgetError, Plan, Spec, catalog, plan, training_function
from polyattn.language import value_of
from polyattn.lowering import lower
from polyattn.lowering.allocations import Meter
from polyattn.testing import specifications
from tests.drawing import mostly_nightly, share

SIZES = {"N": 12, "C": 6, "H": 4, "W": 4, "G": 2, "K": 2, "R": 3, "V": 2}


def allocated(call: Callable[[], object]) -> int:
    """The most bytes at once in a call whose result is held, by the allocator's events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        held = call()
    assert record.profiler is not None
    most = now = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    del held
    return most


def measured(made: Plan) -> int:
    spec = made.spec
    shapes = {t: [value_of(a, made.sizes) for a in spec.shape(t)] for t in (*spec.inputs, *spec.parameters)}
    tensors = [torch.randn([made.batch, *s] if t in spec.inputs else s) for t, s in shapes.items()]
    if made.backward is None:
        graph = lower(made)
        return allocated(lambda: graph(*tensors))
    function, wanted = training_function(made), [t.requires_grad_() for t in tensors]
    shape = [made.batch, *(value_of(a, made.sizes) for a in spec.shape(spec.output))]
    seed = torch.randn(shape)

    def both() -> object:
        output = function(*wanted)
        return output, torch.autograd.grad(output, wanted, seed, allow_unused=True)

    return allocated(both)


def test_a_product_copies_its_mask_to_the_dtype_of_the_other_operand():
    tensors = [torch.rand(50, 40) > 0.5, torch.rand(50, 40)]
    without_data = [t.to("meta") for t in tensors]
    with Meter(without_data) as meter:
        torch.mul(*without_data)
    assert meter.most == allocated(lambda: torch.mul(*tensors)) == 2 * 4 * 50 * 40


def small(spec: Spec) -> dict[str, int]:
    return {"B": 2, **{n: SIZES.get(n, 2) for n in spec.sizes.atomic if not n.isdigit()}}


@pytest.mark.parametrize("objective", ["forward", "training"])
@pytest.mark.parametrize("name", mostly_nightly(catalog.names(), ["tt_nl", "axial", "ba_transform"]))
def test_torch_allocates_what_a_plan_of_the_catalogue_says(name: str, objective: str):
    spec = catalog.get(name)
    made = plan(spec, small(spec), objective)
    assert measured(made) == pytest.approx(made.peak_bytes, rel=0.05)
    assert measured(made) <= made.peak_bytes


@share(0.3)
@given(st.data())
def test_torch_allocates_no_more_than_the_limit(data: st.DataObject):
    """Of generated specifications: within the limit, within 5 % of the plan's figure, and less for a smaller limit."""
    spec = data.draw(specifications())
    sizes = {name: data.draw(st.integers(1, 9)) for name in spec.sizes.atomic}
    objective = data.draw(st.sampled_from(["forward", "training"]))
    made = plan(spec, sizes, objective)
    # What the free plan keeps to is not refused, and changes nothing.
    assert plan(spec, sizes, objective, memory_limit=made.peak_bytes).graph == made.graph
    last = made.peak_bytes
    for share_of in (0.9, 0.7):
        limit = int(share_of * last)
        if limit == last:
            break
        try:
            tight = plan(spec, sizes, objective, memory_limit=limit)
        except BudgetError:
            break
        assert measured(tight) <= tight.peak_bytes <= limit < last
        last = tight.peak_bytes
        made = tight
    assert 0.95 * made.peak_bytes <= measured(made) <= made.peak_bytes


def test_copies_results_and_gradients_are_counted():
    """By hand: an output and two gradients of 2 x 12 x 6 and 6 x 6 entries in float32."""
    made = plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", small(catalog.poly_nl()), "training")
    assert made.memory.forward == 4 * 144
    assert made.memory.kept == 0
    assert made.peak_bytes == 4 * (144 + 144 + 36)


@pytest.mark.parametrize("name", ["criss_cross", "bilinear_pooling"])
def test_a_gradient_in_the_order_of_its_axes_keeps_to_every_limit(name: str):
    """The output lies in memory otherwise, or an operation reads a matrix that it has to copy."""
    spec = catalog.get(name)
    made = plan(spec, small(spec), "training")
    while True:
        assert 0.95 * made.peak_bytes <= measured(made) <= made.peak_bytes
        try:
            made = plan(spec, small(spec), "training", memory_limit=made.peak_bytes - 1)
        except BudgetError:
            break


def test_what_operations_copy_inside_is_counted():
    """By hand, in float32: softmax of a transposed tensor, a sum in float64, a product with a whole number."""
    x = torch.empty(6, 4, device="meta")
    for call, extra in (
        (lambda: torch.softmax(x.T, 1), 96),
        (lambda: x.sum(1, dtype=torch.float64), 192),
        (lambda: x * torch.empty(6, 4, dtype=torch.int64, device="meta"), 96 + 192),
    ):
        with Meter([x]) as meter:
            result = call()
        assert meter.most == result.untyped_storage().nbytes() + extra
