"""The orders that a page compares."""

from itertools import product

import pytest

from polyattn import catalog
from polyattn.lowering import plan
from polyattn.study.report.candidates import NEAR, candidates
from polyattn.study.report.sizes import start


@pytest.mark.parametrize("objective", ["forward", "training"])
@pytest.mark.parametrize("name", ["poly_nl", "nl", "e_nl", "ba_transform_block"])
def test_one_of_them_takes_what_the_planner_takes_at_the_sizes_at_hand(name, objective):
    spec = catalog.get(name)
    sizes = start(spec, {})
    best = plan(spec, sizes, objective, cost="macs")
    fewest = best.training_macs if objective == "training" else best.macs
    found = candidates(spec, sizes, objective)
    assert min(sum(_value(m, sizes) for m in c.formula.terms) for c in found) == fewest
    assert found[0].label == "as written"


def _value(monomial, sizes):
    total = monomial.coefficient
    for size, power in monomial.powers:
        total *= sizes[size] ** power
    return total


@pytest.mark.parametrize("name", ["poly_nl", "e_nl"])
def test_their_formulas_are_their_plans_own(name):
    spec = catalog.get(name)
    sizes = start(spec, {"B": 3, "N": 50})
    for candidate in candidates(spec, sizes, "forward"):
        assert sum(_value(m, sizes) for m in candidate.formula.terms) == candidate.plan.macs


def test_at_other_sizes_one_of_them_is_near_the_best():
    spec = catalog.poly_nl()
    found = candidates(spec, start(spec, {}), "forward")
    for n, c in product([49, 784, 12544], [16, 256, 4096]):
        sizes = {"B": 8, "N": n, "C": c}
        fewest = plan(spec, sizes, cost="macs").macs
        assert min(sum(_value(m, sizes) for m in k.formula.terms) for k in found) <= NEAR * fewest
