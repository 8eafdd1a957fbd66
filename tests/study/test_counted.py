"""The study's formulas are what torch counts when it runs the lowered graphs; zeros filled in aside."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Spec, catalog
from polyattn.lowering import graphs, lower, products
from polyattn.study import complexity
from polyattn.study.counted import Counted, counted, run
from polyattn.testing import specifications
from tests.drawing import share


@contextmanager
def nothing_filled() -> Iterator[None]:
    """Lowering that never fills a matrix up with zeros to spare a copy of the other one."""
    for cache in (graphs._lower, graphs._lower_backward):
        cache.cache_clear()
    with mock.patch.object(products, "_tied", return_value=()):
        yield
    for cache in (graphs._lower, graphs._lower_backward):
        cache.cache_clear()


@share(0.8)
@given(st.data())
def test_formulas_are_the_multiply_accumulates_that_torch_counts(data: st.DataObject):
    spec = data.draw(specifications())
    sizes = {name: data.draw(st.integers(1, 40)) for name in spec.sizes.atomic}
    objective = data.draw(st.sampled_from(["forward", "training"]))
    order = data.draw(st.sampled_from(["as written", "opt_einsum", "planned"]))
    study = complexity({"layer": spec}, objective, orders=[order], B=data.draw(st.integers(1, 5)), **sizes)
    ((formulas,), (case,)) = study.formulas["layer"], study.cases
    lowered = counted(case.plan).macs
    with nothing_filled():
        found = counted(case.plan).macs
    assert lowered >= found
    if objective == "forward" or case.plan.backward is not None:
        assert case.macs_as_run == lowered
    if objective == "training" and case.plan.backward is None:
        found *= 3  # autograd makes two products for each one; no graph of polyattn runs there
    assert formulas.macs.subs({s: case.sizes[s.name] for s in formulas.macs.free_symbols}) == found == case.macs


def test_matrix_products_and_products_entry_by_entry_are_counted_apart():
    a, b = torch.empty(2, 3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert run(lambda: a @ b)[1] == Counted(2 * 3 * 5 * 7, 0)
    assert run(lambda: (a * a * 2.0 + a).sum())[1] == Counted(0, 2 * 3 * 5)


def test_the_hadamard_form_of_poly_nl_multiplies_entry_by_entry_what_the_formula_says():
    study = complexity("poly_nl", orders=["as written"], N=49, C=8, B=2)
    assert counted(study.cases[0].plan) == Counted(3 * 2 * 49 * 8 * 8, 2 * 2 * 49 * 8)


def test_zeros_that_lowering_multiplies_by_are_in_the_multiply_accumulates_as_run():
    """A core whose summed modes are apart is multiplied as a larger matrix with zeros: 5.5 times as many."""
    sizes = {"N": 24, "C": 64, "K": 64, "R": 64, "S": 7, "V": 16}
    (case,) = complexity("tucker_nl", orders=["planned"], **sizes).cases
    assert (2 * case.macs, 2 * case.macs_as_run) == (1_247_232, 6_852_608)
    assert case.macs_as_run == case.plan.macs_as_run == counted(case.plan).macs
    assert "3,426,304 MACs as run" in str(case.plan)


def test_a_mask_is_copied_to_the_dtype_of_what_it_multiplies():
    """The gradient of a maximum: a mask, its sum in 64-bit whole numbers, and a copy of the mask for the product."""
    text = "x[N]; y[a] = max[b](x[a]*w[b]); where b : C"
    case = complexity(text, "training", orders=["as written"], N=50, C=40).cases[0]
    assert case.peak_bytes >= 50 * 40 * (4 + 1 + 8)


def test_a_planned_backward_pass_counts_as_run_too():
    (case,) = complexity("poly_nl", "training", orders=["planned"], N=50, C=8).cases
    assert case.macs == case.macs_as_run == case.plan.training_macs_as_run == counted(case.plan).macs


@pytest.mark.parametrize("name", ["nl", "tesa"])
def test_autograd_makes_two_products_for_each_one(name: str):
    """Counted in autograd's own backward pass, of matrix products alone where the plan has no others."""
    spec: Spec = catalog.get(name)
    sizes = {k: n for k, n in {"N": 12, "H": 3, "W": 4, "C": 8, "R": 2}.items() if k in spec.sizes.names}
    (case,) = complexity(spec, "training", orders=["as written"], **sizes).cases
    tensors = [
        torch.randn([*([1] if t in spec.inputs else []), *(case.sizes[s] for s in shape)], requires_grad=True)
        for t, shape in (spec.inputs | spec.parameters).items()
    ]
    _, found = run(lambda: lower(case.plan)(*tensors).sum().backward())
    forward = counted(case.plan)
    assert found.matrix == 3 * forward.matrix
    assert case.macs == 3 * forward.macs
