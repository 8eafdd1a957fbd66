"""Plans that are chosen with fused kernels: the cheapest with them, and lowered with the kernels that they show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.kernels.gram import cost as gram_cost
from polyattn.kernels.hadamard_mean import cost as hadamard_cost
from polyattn.kernels.project import cost as project_cost
from polyattn.lowering import lower, lower_backward, lower_with_kept
from polyattn.lowering.fused import with_kernels
from polyattn.lowering.training import backward_pays
from polyattn.planning import DEVICES, question, ranked_plans
from polyattn.planning.costs import CUDA_NARROW
from polyattn.planning.recomputing import CHEAP_SHARE, with_backward

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
    name=st.sampled_from(["poly_nl", "nl", "e_nl", "latent_gnn", "e_nl with softmax"]),
    n=st.integers(1, 4000),
    c=st.integers(1, 600),
    batch=st.integers(1, 32),
    objective=st.sampled_from(["forward", "training"]),
)
@example("poly_nl", 1868, 122, 32, "training")  # t2 made again is 3.6 % with kernels, 2.0 % without
def test_no_candidate_takes_less_than_the_choice_and_lowering_runs_the_kernels_it_shows(name, n, c, batch, objective):
    softmax = {"softmax": True} if name.endswith("softmax") else {}
    spec = getattr(pa.catalog, name.split()[0])(**softmax)
    sizes = {size: {"N": n, "C": c}.get(size, max(1, c // 2)) for size in spec.sizes.names} | {"B": batch}
    chosen = pa.plan(spec, sizes, objective, device="cuda")
    _, price = with_kernels(chosen, CUDA, CUDA)
    forward = ranked_plans(question(spec, sizes, device="cuda"), 64)
    if objective == "forward":
        assert price == min(with_kernels(p, CUDA, CUDA)[1] for p in forward)
    else:  # the backward passes of the few candidates whose forward passes are the cheapest
        first = min(forward, key=lambda p: with_kernels(p, CUDA, CUDA)[1])
        written = pa.plan(spec, sizes, "as_written")
        first, written = (with_backward(replace(p, objective="training")) for p in (first, written))
        if first.training_macs <= written.training_macs:
            assert price <= with_kernels(first, CUDA, CUDA)[1] * (1 + CHEAP_SHARE)
    shown = dict(chosen.kernels)
    if chosen.backward is not None and backward_pays(chosen, CUDA):
        graphs = [lower_with_kept(chosen, device="cuda"), lower_backward(chosen, device="cuda")]
    else:
        graphs = [lower(chosen, device="cuda")]
    run = [pair for graph in graphs for pair in graph.meta["plan"].kernels]
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

    assert kernels() == kernels(device=DEVICES["cpu"]) == kernels(device="cuda", cost="macs") == set()
    assert kernels(device=CUDA) == kernels(device="cuda") == {"gram", "project"}
    assert kernels(device=CUDA, kernels=["gram"]) == kernels(kernels="gram") == {"gram"}
    assert kernels(device="cuda", objective="as_written") == {"hadamard_mean"}
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
    from polyattn.lowering import timing

    original = timing.shared if objective == "forward" else timing.differentiable

    def spy(plan, *part, **options):
        called.append(options["kernels"])
        return original(plan, *part, **options)

    monkeypatch.setattr(timing, "shared" if objective == "forward" else "differentiable", spy)
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    plan = pa.plan(
        pa.catalog.poly_nl(), {"N": 5, "C": 2}, objective, cost="measured", kernels=["hadamard_mean", "gram"]
    )
    assert made(plan) <= {"hadamard_mean", "gram"}
    assert called
    assert {*called} == {("hadamard_mean", "gram")}


def test_layers_on_a_gpu_are_planned_with_kernels(monkeypatch):
    from polyattn.runtime import plan_cache

    found = []
    monkeypatch.setattr(plan_cache, "forward_function", lambda plan, **options: found.append(plan) or torch.add)
    plan_cache.forget()
    for dtype in ("float32", "bfloat16"):
        family = plan_cache.family_of(str(pa.catalog.poly_nl()), (("C", 128),), (), "forward", "cuda", False, dtype)
        family.function({"C": 128, "N": 196, "batch": 1})
    plan_cache.forget()
    assert made(found[0]) == {"hadamard_mean", "project"}
    assert [p.graph for p in found] == [
        pa.plan(pa.catalog.poly_nl(), LATE, device="cuda", dtype=dtype).graph for dtype in ("float32", "bfloat16")
    ]


def test_sixteen_bits_take_half_the_traffic_and_other_rates():
    narrow = pa.lowering.calibrated("cuda", "bfloat16")
    assert narrow == pa.lowering.calibrated("cuda", torch.float16)
    assert (narrow.itemsize, narrow.kind) == (2, "cuda")
    assert narrow.macs_per_second > CUDA.macs_per_second
    halved = replace(CUDA, itemsize=2)
    plan = pa.plan(pa.catalog.poly_nl(), TALL, kernels="off", device="cuda")
    gram, project = gram_cost.forward(8, 3136, 256, 2), project_cost.project(8, 3136, 256, 256, 2)
    steps = sum(halved.step(plan.graph, n) for n in plan.nodes[-4:-2])
    assert with_kernels(plan, CUDA, halved)[1] == pytest.approx(steps + seconds(gram) + seconds(project))
    copy = pa.plan("x[N,C]; y[a,b] = x[a,b]*w[a,b]", {"B": 64, "N": 4096, "C": 256}, kernels="off", device="cuda")
    fixed = CUDA.step_seconds * len(copy.steps)
    assert halved.seconds(copy.graph) - fixed == pytest.approx((CUDA.seconds(copy.graph) - fixed) / 2)


def test_where_matrix_units_make_arithmetic_cheap_another_order_is_the_cheapest():
    def operations(dtype):
        sizes = {"B": 8, "N": 784, "C": 512}
        return [s.operation for s in pa.plan(pa.catalog.poly_nl(), sizes, device="cuda", dtype=dtype).steps]

    assert operations("float32") == operations("float64")
    assert operations("float32") != operations("bfloat16")
    with pytest.raises(pa.SizeError, match="unknown dtype 'int8'; there are float32, bfloat16"):
        operations("int8")


@pytest.mark.parametrize("autocast", [False, True])
def test_what_a_layer_on_a_gpu_is_planned_for(monkeypatch, autocast):
    from polyattn.lowering import products_dtype

    class OnGpu:
        device, dtype = torch.device("cuda"), torch.float16

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: autocast and kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    assert products_dtype(OnGpu()) == ("bfloat16" if autocast else "float16")
    assert products_dtype(torch.ones(1, dtype=torch.bfloat16)) == "float32"
    OnGpu.dtype = torch.complex64
    assert products_dtype(OnGpu()) == ("bfloat16" if autocast else "float32")


@given(n=st.integers(1, 4000), c=st.integers(1, 600), batch=st.integers(1, 32))
def test_lowering_in_a_dtype_runs_what_the_plan_for_it_shows(n, c, batch):
    plan = pa.plan(pa.catalog.nl(), {"B": batch, "N": n, "C": c}, device="cuda", dtype="bfloat16")
    assert lower(plan, device="cuda", dtype=torch.bfloat16).meta["plan"].kernels == plan.kernels


def test_candidates_in_sixteen_bits_are_timed_with_the_kernels_of_sixteen_bits(monkeypatch):
    from polyattn.lowering import planner, timing

    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(timing, "_tensors", lambda plan: [])
    monkeypatch.setattr(planner, "calibrated", lambda device, dtype: CUDA_NARROW)
    monkeypatch.setattr(timing, "shared", lambda plan, part, **options: asked.append(options["device"]))
    monkeypatch.setattr(timing, "_medians", lambda calls, device: [float(k) for k in range(len(calls))])
    pa.plan(pa.catalog.nl(), {"B": 8, "N": 197, "C": 32}, device="cuda", dtype="bfloat16", cost="measured")
    assert len(asked) > 1
    assert {*asked} == {CUDA_NARROW}
