"""Sizes far beyond any memory: a plan, or an error of polyattn."""

import pytest

import polyattn as pa


@pytest.mark.parametrize("objective", ["forward", "training", "as_written"])
@pytest.mark.parametrize("cost", ["roofline", "macs"])
def test_costs_that_no_float_holds_are_counted_exactly(objective, cost):
    places = "".join(f"*x[i{k},j{k}]" for k in range(16))
    sizes = {"N": 10**6, "C": 10**30}
    plan = pa.plan(f"x[N,C]; y[a,b] = x[a,b]{places}", sizes, objective, cost=cost)
    assert plan.macs >= sizes["N"] * sizes["C"]
    written = pa.plan("x[N,C]; z[a,b,c,d,e,f,g,h] = x[a,b]*x[c,d]*x[e,f]*x[g,h]; y[a,b] = z[a,b,c,d,e,f,g,h]", sizes)
    assert isinstance(written.macs, int)
