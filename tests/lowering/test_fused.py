"""Plans that are chosen with fused kernels: the cheapest with them, and lowered with the kernels that they show."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.kernels.gram import cost as gram_cost
from polyattn.kernels.hadamard_mean import cost as hadamard_cost
from polyattn.kernels.project import cost as project_cost
from polyattn.lowering import lower, lower_backward, lower_with_kept
from polyattn.lowering.fused import with_kernels
from polyattn.planning import DEVICES, Device, question, ranked_plans

CUDA = DEVICES["cuda"]
LATE = {"B": 1, "N": 196, "C": 128}
TALL = {"B": 8, "N": 3136, "C": 256}


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    """As on a machine with Triton; nothing is run on a GPU here."""
    monkeypatch.setattr("polyattn.lowering.matching.has_triton", lambda: True)


def made(plan: pa.Plan) -> set[str]:
    return {operation for _, operation in plan.kernels if not operation.startswith("in ")}


def seconds(cost) -> float:
    return cost.seconds(CUDA.macs_per_second, CUDA.bytes_per_second) + CUDA.step_seconds


def test_poly_nl_on_few_positions_goes_without_its_gram_matrix_where_the_hadamard_form_is_one_kernel():
    assert made(pa.plan(pa.catalog.poly_nl(), LATE, device="cuda")) == {"hadamard_mean", "project"}
    without = pa.plan(pa.catalog.poly_nl(), LATE, device="cuda", kernels="off")
    assert without.kernels == ()
    assert without == ranked_plans(question(pa.catalog.poly_nl(), LATE, device="cuda"), 1)[0]
    assert made(with_kernels(without, CUDA, CUDA)[0]) == {"gram", "project"}


def test_the_time_of_a_plan_is_that_of_its_kernels_and_of_the_steps_that_are_left():
    plan, found = with_kernels(pa.plan(pa.catalog.poly_nl(), TALL, kernels="off", device="cuda"), CUDA, CUDA)
    left = [n for n, s in zip(plan.names, plan.nodes, strict=True) if n in ("t2", "t3") and s]
    steps = sum(CUDA.step(plan.graph, plan.nodes[plan.names.index(n)]) for n in left)
    gram, project = gram_cost.forward(8, 3136, 256, 4), project_cost.project(8, 3136, 256, 256, 4)
    assert len(left) == 2
    assert found == pytest.approx(steps + seconds(gram) + seconds(project))
    late, found = with_kernels(pa.plan(pa.catalog.poly_nl(), LATE, device="cuda"), CUDA, CUDA)
    mean, project = hadamard_cost.forward(1, 196, 128, 128, 4), project_cost.project(1, 196, 128, 128, 4)
    assert late.kernels == (
        ("t1", "in t3"),
        ("t2", "in t3"),
        ("t3", "hadamard_mean"),
        ("t4", "in t5"),
        ("t5", "project"),
    )
    assert found == pytest.approx(seconds(mean) + seconds(project))


@given(
    name=st.sampled_from(["poly_nl", "nl", "e_nl", "latent_gnn"]),
    n=st.integers(1, 4000),
    c=st.integers(1, 600),
    batch=st.integers(1, 32),
    objective=st.sampled_from(["forward", "training"]),
)
def test_no_candidate_takes_less_than_the_choice_and_lowering_runs_the_kernels_it_shows(name, n, c, batch, objective):
    spec = getattr(pa.catalog, name)()
    sizes = {size: {"N": n, "C": c}.get(size, max(1, c // 2)) for size in spec.sizes.names} | {"B": batch}
    chosen = pa.plan(spec, sizes, objective, device="cuda")
    _, price = with_kernels(chosen, CUDA, CUDA)
    asked = question(spec, sizes, objective, device="cuda")
    assert price == min(with_kernels(p, CUDA, CUDA)[1] for p in ranked_plans(asked, 64))
    shown = dict(chosen.kernels)
    if any(step.startswith("g") for step in shown):
        graphs = [lower_with_kept(chosen, device="cuda"), lower_backward(chosen, device="cuda")]
    else:
        graphs = [lower(chosen, device="cuda")]
    run = [pair for graph in graphs for pair in graph.meta["plan"].kernels]
    if chosen.backward is None or len(graphs) == 2:
        assert dict(run) == shown


def test_the_table_of_a_training_plan_shows_the_kernels_of_both_passes():
    plan = pa.plan(pa.catalog.poly_nl(), TALL, "training", device="cuda")
    assert made(plan) == {"gram", "project", "project_pair", "cross_gram"}
    rows = [line.split()[:2] for line in str(plan).splitlines()]
    assert ["t1", "gram"] in rows
    assert any(row[1:] == ["project_pair"] and row[0].startswith("g") for row in rows)
    assert "gram(" not in lower(plan).code  # on the processor the same plan runs without


def test_kernels_are_counted_where_they_are_asked_for_and_can_be():
    def kernels(**options):
        return made(pa.plan(pa.catalog.poly_nl(), TALL, **options))

    assert kernels() == kernels(device=CUDA) == kernels(device="cuda", cost="macs") == set()
    assert kernels(device=CUDA, kernels=["gram"]) == kernels(kernels="gram") == {"gram"}
    assert kernels(device="cuda", objective="as_written") <= {"hadamard_mean", "project"}
    with pytest.raises(pa.SizeError, match="no kernel 'grams'"):
        kernels(kernels="grams")


def test_a_machine_without_triton_plans_without_kernels(monkeypatch):
    monkeypatch.setattr("polyattn.lowering.matching.has_triton", lambda: False)
    assert not pa.plan(pa.catalog.poly_nl(), TALL | {"N": 3137}, device="cuda").kernels


def test_a_memory_limit_holds_with_kernels_too():
    limit = 2 * 4 * 196 * 128
    plan = pa.plan(pa.catalog.poly_nl(), LATE, device="cuda", memory_limit=limit)
    assert plan.peak_bytes <= limit
    with pytest.raises(pa.BudgetError):
        pa.plan(pa.catalog.poly_nl(), LATE, device="cuda", memory_limit=1)


@pytest.mark.parametrize("objective", ["forward", "training"])
def test_measured_candidates_are_run_with_the_kernels_that_are_asked_for(monkeypatch, objective):
    called = []
    from polyattn.lowering import planner

    original = planner.lower if objective == "forward" else planner.differentiable

    def spy(plan, **options):
        called.append(options["kernels"])
        return original(plan, **options)

    monkeypatch.setattr(planner, "lower" if objective == "forward" else "differentiable", spy)
    monkeypatch.setattr(planner, "SECONDS", 0.0)
    plan = pa.plan(
        pa.catalog.poly_nl(), {"N": 33, "C": 6}, objective, cost="measured", kernels=["hadamard_mean", "gram"]
    )
    assert made(plan) <= {"hadamard_mean", "gram"}
    assert called
    assert {*called} == {("hadamard_mean", "gram")}


def test_layers_on_a_gpu_are_planned_with_kernels(monkeypatch):
    from polyattn.nn import planned

    found = []
    monkeypatch.setattr(planned, "differentiable", lambda plan, **options: found.append(plan) or torch.add)
    planned._planned.cache_clear()
    planned.planned(str(pa.catalog.poly_nl()), (("C", 128),), ("N",), (196,), 1, "forward", "cuda")
    planned._planned.cache_clear()
    assert made(found[0]) == {"hadamard_mean", "project"}


def test_a_device_s_own_rates_decide():
    slow_start = Device("one that starts quickly", CUDA.macs_per_second, CUDA.bytes_per_second, 1e-9, CUDA.tile)
    found = with_kernels(pa.plan(pa.catalog.poly_nl(), LATE, kernels="off"), slow_start, slow_start)[1]
    assert found < with_kernels(pa.plan(pa.catalog.poly_nl(), LATE, kernels="off"), CUDA, CUDA)[1]
