"""The operators: gradients, shapes under tracing, compilers, transforms, autocast, refusals."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.flop_counter import FlopCounterMode

import polyattn as pa
from polyattn import kernels
from polyattn.kernels import runtime
from polyattn.kernels.bilinear import block_cross, block_mix
from polyattn.kernels.bilinear import naive as bilinear_naive
from polyattn.kernels.cross_gram import naive as cross_naive
from polyattn.kernels.gram import naive as gram_naive
from polyattn.kernels.hadamard_mean import naive as hadamard_naive
from polyattn.kernels.linear_attention import naive as linear_naive
from polyattn.kernels.project import naive as project_naive
from polyattn.kernels.projected_attention import naive as projected_naive
from tests.drawing import mostly_nightly

from .cases import DEVICE, LAYOUTS, distance, within_nan

pytestmark = pytest.mark.interpreted

FUNCTIONS = {
    "gram": (kernels.gram, gram_naive.gram, [(2, 20, 5)]),
    "cross_gram": (
        lambda x, y: kernels.cross_gram(x, y, 0.1),
        lambda x, y: cross_naive.cross_gram(x, y, 0.1),
        [(2, 20, 5), (2, 20, 4)],
    ),
    "hadamard_mean, tall": (
        lambda x, v, w: kernels.hadamard_mean(x, v, w, 0.1),
        lambda x, v, w: hadamard_naive.hadamard_mean(x, v, w, 0.1),
        [(2, 20, 5), (5, 4), (5, 4)],
    ),
    "hadamard_mean, wide": (
        kernels.hadamard_mean,
        lambda x, v, w: hadamard_naive.hadamard_mean(x, v, w, 1 / 3),
        [(2, 3, 5), (5, 4), (5, 4)],
    ),
    "project": (kernels.project, project_naive.project, [(2, 20, 5), (5, 4), (2, 5)]),
    "project without scale": (kernels.project, project_naive.project, [(2, 20, 5), (2, 5, 4)]),
    "project_pair": (
        kernels.project_pair,
        project_naive.project_pair,
        [(2, 20, 5), (2, 5, 4), (2, 20, 3), (3, 4)],
    ),
    "bilinear": (kernels.bilinear, bilinear_naive.bilinear, [(2, 7, 5, 6), (2, 2, 3, 3), (2, 2, 2, 2)]),
    "bilinear of many blocks": (
        kernels.bilinear,
        bilinear_naive.bilinear,
        [(1, 17, 17, 2), (1, 1, 17, 17), (1, 1, 17, 17)],
    ),
    "block_cross": (
        lambda y, x: block_cross(y, x, 2, 3, 2),
        lambda y, x: bilinear_naive.block_cross(y, x, 2, 3, 2),
        [(2, 7, 5, 6), (2, 7, 5, 6)],
    ),
    "linear_attention": (
        kernels.linear_attention,
        linear_naive.linear_attention,
        [(2, 2, 20, 5), (2, 2, 20, 5), (2, 2, 20, 4)],
    ),
    "projected_context": (
        kernels.projected_context,
        lambda *t: projected_naive.context(*t)[0],
        [(2, 20, 5), (5, 3), (2, 20, 4)],
    ),
    "projected_query": (kernels.projected_query, projected_naive.query, [(2, 20, 5), (5, 3), (2, 3, 4)]),
}


def draw(shapes, dtype=torch.float32, device=DEVICE):
    return [torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("layout", mostly_nightly(LAYOUTS, ("rows", "columns")))
def test_gradients_equal_those_of_the_definition(name, layout):
    function, naive, shapes = FUNCTIONS[name]
    inputs = [within_nan(t.detach(), layout if k == 0 else "rows").requires_grad_() for k, t in enumerate(draw(shapes))]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, reference = function(*inputs), naive(*exact)
    seed = torch.randn_like(reference)
    have = torch.autograd.grad(y, inputs, seed.to(y))
    assert distance([y, *have], [reference, *torch.autograd.grad(reference, exact, seed)]) < 2e-5


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if "many" not in n])
def test_first_and_second_derivatives_equal_finite_differences(name):
    function, _, shapes = FUNCTIONS[name]
    inputs = draw([tuple(min(n, 6) for n in s) for s in shapes], torch.float64, "cpu")
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("name", ["gram", "hadamard_mean, tall", "bilinear", "linear_attention", "projected_query"])
def test_second_derivatives_in_single_precision_equal_the_definitions(name):
    function, naive, shapes = FUNCTIONS[name]
    inputs = draw(shapes)

    def second(f, tensors):
        first = torch.autograd.grad(f(*tensors).square().sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), tensors)

    exact = [t.detach().double().requires_grad_() for t in inputs]
    assert distance(second(function, inputs), second(naive, exact)) < 1e-4


OPERATORS = {
    "gram": [(2, 20, 5), 0.5, ""],
    "hadamard_mean": [(2, 20, 5), (5, 4), (5, 4), 0.5, ""],
    "project": [(2, 20, 5), (5, 4), (2, 5), ""],
    "project_pair": [(2, 20, 5), (2, 5, 4), (2, 20, 3), (3, 4), ""],
    "block_mix": [(2, 7, 5, 6), (2, 2, 6, 6), 3, 2, ""],
    "block_cross": [(2, 7, 5, 6), (2, 7, 5, 6), 2, 3, 2, ""],
    "linear_context": [(2, 2, 20, 5), (2, 2, 20, 4), ""],
    "linear_query": [(2, 2, 20, 5), (2, 2, 5, 4), ""],
    "projected_context": [(2, 20, 5), (5, 3), (2, 20, 4), ""],
    "projected_query": [(2, 20, 5), (5, 3), (2, 3, 4), ""],
    "projected_context_backward": [(2, 20, 5), (5, 3), (2, 20, 4), (2, 3, 4), (2, 3), (2, 3, 4), ""],
    "projected_query_backward": [(2, 20, 5), (5, 3), (2, 3, 4), (2, 20, 4), ""],
    "linear_context_backward": [(2, 2, 20, 5), (2, 2, 20, 4), (2, 2, 5, 4), (2, 2, 5), (2, 2, 5, 4), ""],
    "linear_query_backward": [(2, 2, 20, 5), (2, 2, 5, 4), (2, 2, 20, 4), ""],
}
CHECKS = {"rows": ("test_schema", "test_faketensor", "test_autograd_registration")}
"""In other layouts only the strides of fake tensors may differ."""


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("layout", mostly_nightly(LAYOUTS, ("rows", "columns")))
def test_operators_keep_torch_s_rules(name, layout):
    backward = name.endswith("backward")
    arguments = [
        within_nan(torch.randn(a, device=DEVICE), layout if k == 0 else "rows").requires_grad_(not backward)
        if isinstance(a, tuple)
        else a
        for k, a in enumerate(OPERATORS[name])
    ]
    torch.library.opcheck(
        getattr(torch.ops.polyattn, name), tuple(arguments), test_utils=CHECKS.get(layout, ("test_faketensor",))
    )


@pytest.mark.parametrize("name", ["gram", "hadamard_mean, tall", "project", "bilinear", "projected_context"])
def test_compiled_whole_and_exported_a_kernel_stays_one_operation(name):
    function, _, shapes = FUNCTIONS[name]
    inputs = draw(shapes)
    seen = []

    def backend(module, _):
        seen.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    assert distance(compiled(*inputs), function(*inputs)) < 1e-6
    assert any("polyattn" in target for target in seen)

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    exported = torch.export.export(Module(), tuple(inputs))
    assert any("polyattn" in str(node.target) for node in exported.graph.nodes)
    assert distance(exported.module()(*inputs), function(*inputs)) < 1e-6


def test_a_compiled_gradient_equals_the_plain_one():
    x, w1, w2 = draw([(2, 20, 5), (5, 4), (5, 4)])

    def loss(x, w1, w2):
        return kernels.hadamard_mean(x, w1, w2).square().sum() + kernels.gram(x).square().sum()

    have = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x, w1, w2), (x, w1, w2))
    assert distance(have, torch.autograd.grad(loss(x, w1, w2), (x, w1, w2))) < 1e-5


@pytest.mark.parametrize("name", ["gram", "project", "bilinear", "linear_attention", "projected_context"])
def test_vmap_batches_a_kernel(name):
    function, naive, shapes = FUNCTIONS[name]
    inputs = [t.detach() for t in draw([(3, *s) for s in shapes])]
    want = torch.stack([naive(*(t[k] for t in inputs)) for k in range(3)])
    assert distance(torch.vmap(function)(*inputs), want) < 1e-5


def test_per_sample_gradients_by_transforms():
    x, w1, w2 = (t.detach() for t in draw([(4, 9, 5), (5, 3), (5, 3)]))

    def loss(w, sample):
        return kernels.hadamard_mean(sample[None], w, w2).square().sum()

    have = torch.vmap(torch.func.grad(loss), (None, 0))(w1, x)
    want = torch.stack([torch.func.grad(loss)(w1, sample) for sample in x])
    assert distance(have, want) < 1e-5


def test_forward_mode_derivatives_equal_the_definitions():
    for function, naive, shapes in FUNCTIONS.values():
        inputs = tuple(t.detach().double().cpu() for t in draw(shapes))
        tangents = tuple(torch.randn_like(t) for t in inputs)
        have, want = (torch.func.jvp(f, inputs, tangents) for f in (function, naive))
        assert distance(have, want) < 1e-12


def test_an_empty_batch_gives_empty_results_and_zero_gradients():
    for name, (function, _, shapes) in FUNCTIONS.items():
        batched = [k for k, s in enumerate(shapes) if k == 0 or s[0] == shapes[0][0]]
        inputs = draw([(0, *s[1:]) if k in batched else s for k, s in enumerate(shapes)])
        y = function(*inputs)
        assert y.shape[0] == 0, name
        for gradient in torch.autograd.grad(y.sum(), inputs):
            assert not gradient.any(), name


def test_autocast_gives_the_lower_precision():
    x, w, _ = draw(FUNCTIONS["project"][2])
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y = kernels.project(x, w)
    assert y.dtype == torch.bfloat16
    assert distance(y, project_naive.project(x, w)) < 2e-2


def test_half_precision_does_not_overflow_where_the_mean_is_small():
    x = torch.full((1, 512, 2), 16.0, dtype=torch.float16, device=DEVICE)
    assert kernels.gram(x, 1 / 512).tolist() == [[[256.0] * 2] * 2]
    ones = torch.ones(2, 1, dtype=torch.float16, device=DEVICE)
    assert kernels.hadamard_mean(x, ones, ones).tolist() == [[1024.0]]


def test_offsets_beyond_two_to_the_31_elements():
    """Virtual memory only: two rows of a tensor of more than 4 GiB are touched."""
    far = 2**31 + 64
    storage = torch.empty(far + 64, dtype=torch.float16, device=DEVICE)
    x = storage.as_strided((1, 2, 8), (far, far, 1))
    x.copy_(torch.randn(1, 2, 8))
    assert distance(kernels.gram(x), gram_naive.gram(x)) < 3e-3
    columns = storage.as_strided((1, 8, 2), (far, 1, far))
    assert distance(kernels.gram(columns), gram_naive.gram(columns)) < 3e-3
    batch = storage.as_strided((2, 1, 8), (far, 8, 1))
    assert distance(kernels.project(batch, torch.eye(8).to(batch)), batch) < 3e-3


def test_without_triton_the_definition_runs(monkeypatch):
    monkeypatch.setattr(runtime, "has_triton", lambda: False)
    for name in ("gram", "hadamard_mean", "project", "bilinear", "linear_attention"):
        monkeypatch.setitem(sys.modules, f"polyattn.kernels.{name}.triton", None)  # importing it would fail
    for function, naive, shapes in FUNCTIONS.values():
        inputs = draw(shapes)
        assert distance(function(*inputs), naive(*inputs)) < 1e-5


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.gram(torch.ones(2, 3)),
        lambda: kernels.hadamard_mean(torch.ones(1, 2, 3), torch.ones(2, 3), torch.ones(2, 3)),
        lambda: kernels.project(torch.ones(1, 2, 3), torch.ones(3, 3), torch.ones(3)),
        lambda: kernels.project(torch.ones(1, 2, 3), torch.ones(3, 3).half()),
        lambda: kernels.project_pair(torch.ones(1, 2, 3), torch.ones(3, 3), torch.ones(1, 2, 3), torch.ones(3, 2)),
        lambda: kernels.bilinear(torch.ones(1, 2, 3, 5), torch.ones(1, 2, 2, 2), torch.ones(1, 2, 3, 3)),
        lambda: kernels.projected_context(torch.ones(1, 2, 3), torch.ones(2, 3), torch.ones(1, 2, 3)),
        lambda: kernels.projected_query(torch.ones(1, 2, 3), torch.ones(3, 2), torch.ones(1, 3, 2)),
        lambda: kernels.linear_attention(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 3)),
    ],
)
def test_wrong_shapes_are_refused_by_name(call):
    with pytest.raises(pa.SizeError, match="takes"):
        call()


def test_blocks_mixed_by_the_kronecker_product_are_the_bilinear_transform():
    x, p, q = (t.detach().cpu().double() for t in draw(FUNCTIONS["bilinear"][2]))
    height, width = x.shape[1:3]
    for group in range(2):
        part = slice(3 * group, 3 * group + 3)
        for b in range(2):
            left = torch.kron(p[b, group], torch.eye(3).double())[:height, :height]
            right = torch.kron(q[b, group], torch.eye(3).double())[:width, :width]
            maps = x[b, ..., part].permute(2, 0, 1)
            have = kernels.bilinear(x, p, q)[b, ..., part].permute(2, 0, 1)
            assert distance(have, left @ maps @ right) < 1e-12
    assert block_mix(x, torch.eye(6).expand(2, 2, 6, 6).double(), 3, 2).equal(x)


def reduced():
    flags = torch.backends.cuda.matmul
    return flags.allow_bf16_reduced_precision_reduction, flags.allow_fp16_reduced_precision_reduction


@pytest.mark.parametrize("before", [(True, True), (True, False), (False, False)])
def test_flags_of_the_process_hold_until_the_last_thread_is_done(before):
    flags, found = torch.backends.cuda.matmul, reduced()
    flags.allow_bf16_reduced_precision_reduction, flags.allow_fp16_reduced_precision_reduction = before
    entered, left = threading.Event(), threading.Event()

    def second():
        with runtime.sums_in_float32():
            entered.set()
            left.wait(10)
            return reduced()

    try:
        with ThreadPoolExecutor(8) as pool:
            with runtime.sums_in_float32():
                late = pool.submit(second)
                entered.wait(10)
            left.set()
            assert late.result() == (False, False)
            assert reduced() == before
            left.set()
            assert set(pool.map(lambda _: second(), range(200))) == {(False, False)}
        with pytest.raises(ValueError, match="inside"), runtime.sums_in_float32():
            raise ValueError("inside")
        assert reduced() == before
    finally:
        flags.allow_bf16_reduced_precision_reduction, flags.allow_fp16_reduced_precision_reduction = found


@pytest.mark.parametrize("wanted", range(3))
def test_project_computes_only_the_gradients_that_are_asked_for(wanted: int):
    tensors = [torch.randn(shape) for shape in ((2, 5, 3), (3, 4), (2, 3))]
    tensors[wanted].requires_grad_()
    y = kernels.project(*tensors)
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() <= 2 * 2 * 5 * 3 * 4  # one product
    x, w, scale = tensors
    (expected,) = torch.autograd.grad(((x * scale[:, None]) @ w).sum(), tensors[wanted])
    torch.testing.assert_close(tensors[wanted].grad, expected)
