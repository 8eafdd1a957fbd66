"""Every entry of the catalogue through every stage, at small sizes, against its loops and its facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polyattn as pa
from polyattn import catalog
from tests.catalog import facts
from tests.drawing import mostly_nightly

NAMES = catalog.names()
LONG = ["axial_relative", "convnext_block", "cosformer", "criss_cross_softmax", "fastformer", "focal_modulation"]
LONG += ["global_context", "large_kernel", "pma", "stand_alone", "swin_window"]
"""Entries whose plans are searched for longer than half a second."""
QUICKLY_PLANNED = sorted({*NAMES} - {*LONG} - {*catalog.names("third_order")})
"""Plans of third-order layers have tests of their own in `tests/lowering` and `tests/planning`."""


def arguments(name: str) -> list[torch.Tensor]:
    """Return the inputs with a batch of one, and the parameters, in the order of the lowered graph."""
    spec = catalog.entry(name).spec
    return [
        torch.from_numpy(t)[None] if n in spec.inputs else torch.from_numpy(t) for n, t in facts.tensors(name).items()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_prints_its_equation_names_its_source_and_has_a_relation_by_name(name: str):
    entry = catalog.entry(name)
    assert pa.Spec(str(entry.spec)) == entry.spec
    assert "\\" in entry.spec.latex() or "=" in entry.spec.latex()
    prose = " ".join((entry.function.__doc__ or "").split())
    assert entry.source in prose
    assert "refer it" in prose
    assert 1900 < entry.year < 2030
    assert entry.facts.title


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_computes_what_its_loops_do(name: str):
    entry, tensors = catalog.entry(name), facts.tensors(name)
    wanted = entry.reference(tensors)
    np.testing.assert_allclose(facts.output(name, tensors), wanted, rtol=1e-10, atol=1e-10)
    if ".." not in str(entry.spec):  # the explicit sums over offsets take seconds
        np.testing.assert_allclose(
            entry.spec.evaluate(tensors, dict(entry.facts.sizes)), wanted, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("name", mostly_nightly(NAMES, QUICKLY_PLANNED))
def test_plans_of_an_entry_compute_it_and_its_gradients(name: str):
    entry, sizes = catalog.entry(name), dict(catalog.entry(name).facts.sizes)
    tensors = [t.requires_grad_() for t in arguments(name)]
    written, forward, training = (pa.plan(entry.spec, sizes, o) for o in ("as_written", "forward", "training"))
    assert forward.macs <= written.macs
    theirs, ours = pa.lower(written)(*tensors), pa.training_function(training)(*tensors)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(pa.lower(forward)(*tensors), theirs, rtol=1e-10, atol=1e-10)
    seed = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    both = [torch.autograd.grad(y, tensors, seed, allow_unused=True, materialize_grads=True) for y in (ours, theirs)]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_of_an_entry_are_those_of_its_equation(name: str):
    spec, known = catalog.entry(name).spec, catalog.entry(name).facts
    assert known.degree == (spec.degree if spec.is_polynomial else None)
    assert known.equivariant == facts.equivariant(name)
    assert dict(known.reach) == facts.reach(name)
    single = {frozenset(pair) for pair in facts.single_symmetries(name)}
    assert single == {frozenset(s[0]) for s in known.symmetries if len(s) == 1}
    assert all(facts.symmetric(name, pairs) for pairs in known.symmetries)


def test_reach_and_families_are_told_apart():
    assert facts.pattern(np.eye(4, dtype=bool)) == 0
    assert facts.pattern(np.tril(np.ones((4, 4), dtype=bool))) == "past"
    assert facts.pattern(np.kron(np.eye(2), np.ones((2, 2))) > 0) == "window"
    assert set(catalog.names()) == {n for f in catalog.families() for n in catalog.names(f)}
    with pytest.raises(pa.SpecError, match="`family` is 'gate'; expected one of"):
        catalog.names("gate")


def test_no_two_entries_are_one_polynomial_unless_they_say_so():
    found: dict[object, str] = {}
    for name in NAMES:
        spec = catalog.entry(name).spec
        try:
            polynomial: object = spec.polynomial()
        except pa.BudgetError:  # cubes of sums in a function's argument
            polynomial = str(spec)
        other = found.setdefault((tuple(spec.inputs.items()), polynomial), name)
        assert other == name or other in catalog.entry(name).facts.relation
