"""Lowering with fused kernels: the same values and gradients, where a kernel applies, and where it pays."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import polyattn as pa
from polyattn.lowering import differentiable, lower, lower_backward, training_function
from polyattn.lowering.matching import NAMES, fusions

BLOCK = {"H": 6, "W": 9, "C": 6, "G": 2, "S": 3, "U": 2, "K": 2}
SOFTMAX = """
x[N,C]; where r : R; where s : V
query[a,r] = softmax[r](x[a,d]*wq[d,r])
key[e,r] = softmax[e](x[e,f]*wk[f,r])
context[r,s] = key[e,r]*x[e,h]*wv[h,s]
y[a,b] = query[a,r]*context[r,s]*wo[s,b]
"""
ASKED = """
x[N,C]; where r : R; where s : V
asked[a,r] = x[a,d]*wk[d,r]
query[a,r] = softmax[r](asked[a,r])
key[e,r] = softmax[e](asked[e,r])
context[r,s] = key[e,r]*x[e,h]*wv[h,s]
y[a,b] = query[a,r]*context[r,s]*wo[s,b]
"""
LAYERS = {
    "poly_nl, tall": (pa.catalog.poly_nl(), {"N": 40, "C": 5}, {"gram", "project"}, {"project_pair", "cross_gram"}),
    "poly_nl, wide": (pa.catalog.poly_nl(), {"N": 4, "C": 9}, {"hadamard_mean"}, set()),
    "nl": (pa.catalog.nl(), {"N": 40, "C": 5}, {"gram"}, {"project_pair", "cross_gram"}),
    "ba_transform": (pa.catalog.ba_transform(), {"H": 4, "W": 5, "C": 6, "G": 2, "K": 2}, {"bilinear"}, set()),
    "ba_transform_block": (pa.catalog.ba_transform_block(), BLOCK, {"bilinear"}, set()),
    "e_nl with softmax": (
        pa.Spec(SOFTMAX),
        {"N": 40, "C": 5, "R": 3, "V": 4},
        {"projected_context", "projected_query"},
        set(),
    ),
    "e_nl with scaled keys": (
        pa.Spec(SOFTMAX.replace("softmax[e](x", "softmax[e](3/C*x")),
        {"N": 40, "C": 5, "R": 3, "V": 4},
        {"projected_context", "projected_query"},
        set(),
    ),
    "e_nl whose queries are its keys": (
        pa.Spec(ASKED),
        {"N": 40, "C": 5, "R": 3, "V": 4},
        {"linear_context", "linear_query"},
        set(),
    ),
    "e_nl with heads": (
        pa.catalog.e_nl(softmax=True, heads=True),
        {"N": 40, "C": 6, "D": 6, "J": 2, "V": 4},
        {"linear_context", "linear_query"},
        set(),
    ),
}


def tensors(spec: pa.Spec, plan: pa.Plan, batch: int = 2) -> list[torch.Tensor]:
    def shape(tensor: str) -> list[int]:
        return [plan.sizes[spec.sizes.name(slot)] for slot in spec.shape(tensor)]

    made = [torch.randn(batch, *shape(t)) for t in spec.inputs] + [torch.randn(shape(t)) / 2 for t in spec.parameters]
    return [t.double() for t in made]


def kernels_of(graph: torch.fx.GraphModule) -> set[str]:
    return {operation for _, operation in graph.meta["plan"].kernels if not operation.startswith("in ")}


@pytest.mark.interpreted
@pytest.mark.parametrize("name", LAYERS)
def test_a_graph_with_kernels_computes_the_same(name):
    spec, sizes, forward, _ = LAYERS[name]
    plan = pa.plan(spec, {"B": 2, **sizes})
    inputs = tensors(spec, plan)
    fused, plain = lower(plan, kernels=NAMES), lower(plan, kernels="off")
    assert kernels_of(fused) == forward
    assert not kernels_of(plain)
    torch.testing.assert_close(fused(*inputs), plain(*inputs))
    single = [t.float() for t in inputs]  # in Triton's interpreter, where there is no GPU
    torch.testing.assert_close(fused(*single), plain(*single), rtol=1e-4, atol=1e-4)
    channels_first = [inputs[0].movedim(-1, 1).contiguous().movedim(1, -1), *inputs[1:]]
    torch.testing.assert_close(lower(plan, kernels=NAMES, channels_first=True)(*channels_first), plain(*inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_with_kernels_are_the_same(name):
    spec, sizes, _, backward = LAYERS[name]
    plan = pa.plan(spec, {"B": 2, **sizes}, "training")
    inputs = [t.requires_grad_() for t in tensors(spec, plan)]
    if plan.backward is None:
        fused, plain = lower(plan, kernels=NAMES), lower(plan, kernels="off")
    else:
        assert kernels_of(lower_backward(plan, kernels=NAMES)) >= backward
        fused, plain = training_function(plan, kernels=NAMES), training_function(plan, kernels="off")
    have, want = (torch.autograd.grad(f(*inputs).square().sum(), inputs) for f in (fused, plain))
    torch.testing.assert_close(have, want)


class Called(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["ba_transform", "ba_transform_block"])
def test_a_layer_with_the_bilinear_kernel_has_its_gradients_from_kernels(name):
    spec, sizes, _, _ = LAYERS[name]
    plan = pa.plan(spec, {"B": 2, **sizes}, "training")
    inputs = [t.requires_grad_() for t in tensors(spec, plan)]
    plain = torch.autograd.grad(training_function(plan, kernels="off")(*inputs).square().sum(), inputs)
    y = differentiable(plan, kernels="bilinear")(*inputs)
    with Called() as called:
        have = torch.autograd.grad(y.square().sum(), inputs)
    assert {"polyattn::block_mix", "polyattn::block_cross"} <= called.names
    torch.testing.assert_close(have, plain)


def test_a_compiler_sees_through_a_graph_with_kernels():
    plan = pa.plan(pa.catalog.poly_nl(), {"B": 2, "N": 40, "C": 5}, "training")
    inputs = [t.requires_grad_() for t in tensors(plan.spec, plan)]
    function = training_function(plan, kernels=NAMES)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    have, want = (torch.autograd.grad(f(*inputs).sum(), inputs) for f in (compiled, function))
    torch.testing.assert_close(have, want)


def test_the_code_and_the_table_name_the_kernels():
    graph = lower(pa.plan(pa.catalog.poly_nl(), {"N": 40, "C": 5}), kernels=["gram"])
    assert "gram(expect_shape, scale = 0.025)" in graph.code
    rows = [line.split()[:2] for line in str(graph.meta["plan"]).splitlines() if line.startswith("t")]
    assert ["t1", "gram"] in rows
    whole = lower(pa.plan(pa.catalog.poly_nl(), {"N": 40, "C": 5}), kernels=NAMES)
    assert "in t5" in str(whole.meta["plan"])


def test_automatic_kernels_are_for_gpus_and_for_sizes_at_which_they_pay(monkeypatch):
    monkeypatch.setattr("polyattn.lowering.matching.has_triton", lambda: True)
    large = pa.plan(pa.catalog.poly_nl(), {"B": 8, "N": 3136, "C": 256}, device="cuda")
    assert not kernels_of(lower(large))
    assert kernels_of(lower(large, device="cuda")) == {"gram", "project"}
    assert not kernels_of(lower(large, device="cuda", kernels="off"))
    monkeypatch.setattr("polyattn.lowering.matching.has_triton", lambda: False)
    assert not kernels_of(lower(large, device="cuda"))


def test_what_the_backward_pass_keeps_is_not_fused_away():
    plan = pa.plan(pa.catalog.poly_nl(), {"B": 2, "N": 40, "C": 5})
    everything = frozenset(range(len(plan.nodes)))
    assert {f.kernel for f in fusions(plan.graph, everything, NAMES).values()} == {"gram"}


def test_a_matrix_is_no_gram_matrix_where_its_factors_differ():
    for text in ("x[N,C]; y[c,d] = x[e,c]*w[e,d]", "x[N,N]; y[a,b] = x[a,e]*x[e,b]"):
        sizes = {"N": 6, "C": 4}
        plan = pa.plan(text, {n: sizes[n] for n in pa.Spec(text).sizes.names})
        assert not kernels_of(lower(plan, kernels=NAMES))


def test_an_unknown_kernel_is_refused_by_name():
    plan = pa.plan(pa.catalog.nl(), {"N": 4, "C": 2})
    for wrong in ("grams", ["gram", "grams"]):
        with pytest.raises(pa.SizeError, match="no kernel 'grams'; there are attention, bilinear, cross_gram"):
            lower(plan, kernels=wrong)
