"""Facts of studies: what is counted, against numbers by hand, plans, and torch's own record of memory."""

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn import catalog
from polyattn.lowering import lower
from polyattn.planning.steps import Leaf
from polyattn.study import complexity
from polyattn.testing import specifications
from tests.drawing import share

B, C, N = sympy.symbols("B C N", positive=True, integer=True)


def test_poly_nl_as_its_authors_write_it():
    study = complexity("poly_nl", orders=["as written"], N=[16, 64], C=8)
    (found,) = study.formulas["poly_nl"]
    assert sympy.expand(found.macs - (3 * B * N * C**2 + 2 * B * N * C)) == 0
    assert found.parameters == 3 * C**2
    assert found.kept_bytes == 0
    assert found.leading == {"B": found.macs, "C": 3 * B * C**2 * N, "N": found.macs}
    assert {dict(p)["N"] for p in found.points} == {16, 64}


def test_a_planner_changes_its_plan_where_positions_outnumber_channels():
    study = complexity("poly_nl", orders=["planned"], cost="macs", N=[16, 4096], C=64)
    hadamard, gram = study.formulas["poly_nl"]
    assert hadamard.leading["N"].coeff(N, 1).coeff(C, 2) == 3 * B
    assert gram.leading["N"].coeff(N, 1).coeff(C, 2) == 2 * B


@share(0.3)
@given(st.data())
def test_numbers_formulas_and_plans_agree(data: st.DataObject):
    spec = data.draw(specifications())
    sizes = {name: data.draw(st.integers(1, 9)) for name in spec.sizes.atomic}
    objective = data.draw(st.sampled_from(["forward", "training"]))
    study = complexity({"layer": spec}, objective, B=data.draw(st.integers(1, 3)), **sizes)
    for case in study.cases:
        (found,) = [f for f in study.formulas["layer"] if f.order == case.order]
        for name in ("macs", "traffic_bytes", "peak_bytes", "kept_bytes", "parameters"):
            formula = getattr(found, name)
            at = {s: sympy.Integer(case.sizes[s.name]) for s in formula.free_symbols}
            counted = getattr(case, name.replace("peak", "step_peak"))
            assert formula.xreplace(at) == counted, name  # all at once: subs() compares terms in between
        if objective == "forward":
            assert (case.macs, case.step_peak_bytes) == (case.plan.macs, case.plan.step_peak_bytes)
        else:
            assert case.macs == case.plan.training_macs
            assert case.step_peak_bytes >= case.plan.step_peak_bytes
            if case.plan.backward is not None:
                assert case.kept_bytes == case.plan.step_kept_bytes


def test_counts_by_hand():
    """Squares are written out beside their sums; autograd multiplies twice for each product of the text."""
    (squares,) = complexity("x[N,C]; y[a] = x[a,d]*x[a,d]", orders=["as written"], N=5, C=7).cases
    assert (squares.macs, squares.step_peak_bytes) == (5 * 7, 4 * (5 + 5 * 7))
    (product,) = complexity("x[N,C]; y[a,b] = x[a,d]*w[d,b]", "training", orders=["as written"], N=5, C=7).cases
    assert product.macs == 3 * 5 * 7 * 7


def test_what_is_kept_is_there_beside_the_gradients_of_the_backward_pass():
    """Four powers are kept while the first two gradients are made, that of d and the last factor's part of dx."""
    spec = "x[N]; a[i] = x[i]*x[i]; b[i] = a[i]*a[i]; c[i] = b[i]*b[i]; d[i] = c[i]*c[i]; y[i] = d[i]*x[i]"
    (case,) = complexity(spec, "training", orders=["planned"], N=1000).cases
    assert case.kept_bytes == 4 * 4 * 1000
    assert case.step_peak_bytes >= case.kept_bytes + 2 * 4 * 1000


MAXIMUM = "x[N,C]; k[e,d] = x[e,c]*w[c,d]; m[d] = max[e](k[e,d]); y[a,d] = x[a,d]*m[d]"


@pytest.mark.parametrize("name", ["nl", "poly_nl", "e_nl", "latent_gnn", MAXIMUM])
def test_kept_by_autograd_is_what_torch_saves(name: str):
    """Storages that autograd saves, inputs and parameters aside, in the author's order."""
    spec = pa.Spec(name) if name == MAXIMUM else catalog.get(name)
    sizes = {k: v for k, v in {"N": 24, "C": 8, "R": 3, "V": 2}.items() if k in spec.sizes.names}
    (case,) = complexity(spec, "training", orders=["as written"], B=2, **sizes).cases
    tensors = [
        torch.randn(*([2] if t in spec.inputs else []), *(sizes[s] for s in shape), requires_grad=True)
        for t, shape in (spec.inputs | spec.parameters).items()
    ]
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = lower(case.plan)(*tensors)
    given_ = {t.untyped_storage().data_ptr() for t in tensors}
    assert sum(n for at, n in saved.items() if at not in given_) == case.kept_bytes
    assert output.requires_grad


def test_opt_einsum_shares_nothing_and_the_planner_does():
    spec = pa.Spec("x[N,C]; y[a,b] = x[a,d]*u[d,b] + x[a,d]*u[d,f]*w[f,b]")
    counts = {c.order: c.macs for c in complexity({"twice": spec}, N=1000, C=8).cases}
    assert counts["opt_einsum"] == 1000 * 64 + 8**3 + 1000 * 64
    assert counts["planned"] <= 1000 * 64 + 8**3


def test_a_function_is_followed_definition_by_definition():
    study = complexity({"softmax": catalog.nl(softmax=True)}, N=16, C=4)
    assert {c.order for c in study.cases} == {"as written", "opt_einsum", "planned"}
    assert all(c.macs > 0 for c in study.cases)


def test_sizes_that_a_layer_does_not_have_make_no_difference_to_it():
    study = complexity(["nl", "axial"], orders=["planned"], H=[4, 8], W="H", N="H*W", C=8, R=2)
    assert [dict(c.point)["N"] for c in study.cases] == [16, 16, 64, 64]
    assert study.layers[0][0] == "nl"


def test_the_table_has_a_row_for_each_case_and_a_column_for_each_size():
    study = complexity(["nl", "poly_nl"], N=[16, 64], C=8)
    table = study.table()
    assert len(table) == 2 * 2 * 3
    assert {"layer", "order", "N", "C", "macs", "peak_bytes", "flops_per_byte", "predicted_seconds"} <= set(table)
    assert "measured_seconds" not in table
    assert list(table["macs"]) == [c.macs for c in study.cases]


def test_measured_times_stand_beside_the_predicted_ones():
    study = complexity("poly_nl", "training", orders=["as written", "planned"], measure=True, seconds=0.01, N=9, C=4)
    assert all(c.measured_seconds is not None and c.measured_seconds > 0 for c in study.cases)
    assert "measured s" in str(study)
    assert "measured_seconds" in study.table()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"N": 4}, "nl: missing size: C"),
        ({"N": 4, "C": 2, "Q": 3}, "no layer has a size 'Q'"),
        ({"N": 4, "C": 2, "objective": "as_written"}, "unknown objective"),
        ({"N": 4, "C": 2, "orders": ["fastest"]}, "unknown order 'fastest'"),
    ],
)
def test_what_cannot_be_studied_is_refused(options: dict, message: str):
    with pytest.raises(pa.SizeError, match=message):
        complexity("nl", **options)


def test_a_study_counts_the_leaves_nowhere_in_its_memory():
    (case,) = complexity("x[N,C]; y[a,b] = x[a,d]*w[d,b]", orders=["as written"], N=5, C=3).cases
    assert case.step_peak_bytes == 4 * 15
    assert case.traffic_bytes == 4 * (15 + 9 + 15)
    assert case.flops_per_byte == 2 * 45 / case.traffic_bytes
    assert sum(isinstance(n, Leaf) for n in case.plan.nodes) == 2
