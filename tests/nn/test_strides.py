"""Gradients at batch 1 and on maps of one row or column, where strides along axes of length 1 may be anything."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

import polyattn as pa
from polyattn.nn.block import BATCH_NORMS
from polyattn.runtime.layouts import settled
from tests.drawing import mostly_nightly

from .blocks import CASES, EVERY_KIND, awake

NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
EXACT = {"rtol": 1e-8, "atol": 1e-8}
SPECIFICATIONS = {
    "polynomial": "x[N,C]; y[a,b] = 1/N*x[a,d]*x[e,d]*x[e,h]*w[h,b]",
    "linear": "x[N,C]; y[a,b] = x[a,d]*w[d,b]",
    "softmax": "x[N,C]; s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,d]*w[d,b]",
    "rows": "x[H,W,C]; y[i,j,b] = 1/H*x[i,j,d]*x[k,j,d]*x[k,j,h]*w[h,b]",
}

FLAT = [name for name, case in CASES.items() if len(case.positions) == 2 and "sub" not in name]


def norm(dim, channels):
    """torch's own batch norm, with weights that tell channels apart."""
    layer = NORMS[dim](channels, dtype=torch.float64)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def surrounded(block, channels, dim):
    """A block between batch norms, as in a ResNet."""
    return nn.Sequential(norm(dim, channels), block, norm(dim, channels)).double().eval()


def strided(x, axis):
    """The map, channels last, with another stride along an axis of length 1."""
    y = x.movedim(1, -1).contiguous().movedim(-1, 1)
    strides = list(y.stride())
    strides[axis] = x.shape[1] if axis == 0 else 1
    return y.as_strided(y.shape, strides)


def plain(x):
    """A map as torch itself lays it out: channels first, and channels last."""
    return x.contiguous(), x.movedim(1, -1).contiguous().movedim(-1, 1)


def forms(x):
    """A map as it can lie in memory."""
    yield from plain(x)
    yield from (strided(x, axis) for axis in (0, *range(2, x.dim())) if x.shape[axis] == 1)


def gradients(module, x, seed):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(module(x), [x, *module.parameters()], seed)


def agree(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def is_as_of_two(module, x, seed, of_x=forms, of_seed=forms):
    """Whether gradients at batch 1 are half of those of the same sample twice, however maps and gradients lie."""
    first, *rest = gradients(module, torch.cat([x, x]), torch.cat([seed, seed]))
    wanted = [first[:1], *(gradient / 2 for gradient in rest)]
    for form in of_x(x):
        for given in of_seed(seed):
            agree(gradients(module, form, given), wanted)


def is_as_of_two_among_norms(module, x, seed):
    """The same of a block alone and before and after torch's batch norms, which take plain maps and gradients."""
    _, block, _ = module
    is_as_of_two(block, x, seed)
    is_as_of_two(module[:2], x, seed, of_x=plain)
    is_as_of_two(module[1:], x, seed, of_seed=plain)
    is_as_of_two(module, x, seed, plain, plain)


@pytest.mark.parametrize("name", mostly_nightly(CASES, EVERY_KIND))
def test_a_block_between_batch_norms_has_at_batch_1_the_gradients_of_batch_2(name):
    case = CASES[name]
    torch.manual_seed(0)
    module = surrounded(awake(case.make()), case.channels, len(case.positions))
    x = case.image(1, dtype=torch.float64)
    is_as_of_two_among_norms(module, x, torch.randn_like(x))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_an_attention_between_batch_norms_has_at_batch_1_the_gradients_of_batch_2(name, residual):
    text = SPECIFICATIONS[name]
    torch.manual_seed(0)
    module = surrounded(pa.nn.Attention(text, 4, residual=residual, beta=0.5), 4, 2)
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    is_as_of_two_among_norms(module, x, torch.randn_like(x))


@pytest.mark.parametrize("make", [lambda: pa.nn.GloRe(64), lambda: pa.nn.A2(64), lambda: pa.nn.LatentGNN(64, [20])])
def test_larger_blocks_of_perturbed_weights_have_at_batch_1_the_gradients_of_batch_2(make):
    torch.manual_seed(0)
    block = make().double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(1, 64, 14, 14, dtype=torch.float64)
    is_as_of_two(block, x, torch.randn_like(x))


@pytest.mark.parametrize("positions", [(1, 5), (5, 1)])
@pytest.mark.parametrize("name", mostly_nightly(FLAT, EVERY_KIND))
def test_on_maps_of_one_row_or_column_gradients_are_those_of_finite_differences(name, positions):
    case = CASES[name]
    torch.manual_seed(0)
    module = surrounded(awake(case.make()), case.channels, 2)
    x = torch.randn(2, case.channels, *positions, dtype=torch.float64)
    seed = torch.randn_like(x)
    agrees_with_differences(module, x, seed, plain, plain)
    agrees_with_differences(module[1], x, seed)


def as_it_is(x):
    return (x,)


def agrees_with_differences(module, x, seed, of_x=forms, of_seed=forms):
    """Whether gradients have the slope of finite differences along a random direction, however maps lie."""
    values = dict(module.named_parameters())
    along_x, along = torch.randn_like(x), {name: torch.randn_like(value) for name, value in values.items()}
    step = 1e-6

    def moved(by):
        state = {name: value.detach() + by * along[name] for name, value in values.items()}
        return (functional_call(module, state, (x + by * along_x,)) * seed).sum().item()

    difference = (moved(step) - moved(-step)) / (2 * step)
    for form in of_x(x):
        for given in of_seed(seed):
            found = gradients(module, form, given)
            slope = sum((g * v).sum().item() for g, v in zip(found, (along_x, *along.values()), strict=True))
            assert math.isclose(slope, difference, rel_tol=1e-5, abs_tol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_in_training_gradients_at_batch_1_are_those_of_finite_differences(name):
    case = CASES[name]
    torch.manual_seed(0)
    dim = len(case.positions)
    module = nn.Sequential(norm(dim, case.channels), awake(case.make()), norm(dim, case.channels)).double().train()
    for layer in module.modules():
        if isinstance(layer, nn.Dropout2d | nn.Dropout3d):
            layer.p = 0.0
    x = case.image(1, dtype=torch.float64)
    seed = torch.randn_like(x)
    agrees_with_differences(module, x, seed, as_it_is, as_it_is)
    agrees_with_differences(module[1], x, seed)


SHAPES = [(1, 4, 7), (1, 4, 3, 5), (2, 4, 1, 5), (2, 4, 5, 1), (1, 4, 1, 1), (1, 4, 2, 3, 2), (2, 4, 2, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_of_a_block_has_right_gradients_whatever_the_strides(shape, training):
    torch.manual_seed(0)
    if training and math.prod(shape) == 4:
        pytest.skip("one position has no variance")
    layer = BATCH_NORMS[len(shape) - 2](4).double().train(training)
    nn.init.normal_(layer.weight)
    x, seed = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    wanted = gradients(layer, x, seed)
    for form in forms(x):
        for given in forms(seed):
            agree(gradients(layer, form, given), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_settling_copies_nothing_and_leaves_alone_what_torch_reads_rightly(shape):
    for x in forms(torch.randn(shape)):
        y = settled(x)
        assert y.data_ptr() == x.data_ptr()
        assert torch.equal(y, x)
    whole = torch.randn(shape)
    assert settled(whole) is whole
    last = {3: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}[len(shape)]
    rows = whole.contiguous(memory_format=last)
    assert settled(rows) is rows
    assert settled(whole.requires_grad_()).stride() == whole.stride()


@pytest.mark.parametrize(
    "make",
    [
        lambda: pa.nn.GloRe(8),
        pytest.param(lambda: pa.nn.A2(8), marks=pytest.mark.nightly),
        pytest.param(lambda: pa.nn.LatentGNN(8, [3], 2), marks=pytest.mark.nightly),
    ],
)
@pytest.mark.usefixtures("_nothing_compiled_before")
def test_compiled_blocks_have_at_batch_1_the_gradients_of_batch_2(make):
    torch.manual_seed(0)
    block = awake(make()).double().eval()
    x = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    seed = torch.randn_like(x)
    of_x, *rest = gradients(block, torch.cat([x, x]), torch.cat([seed, seed]))
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    agree(gradients(compiled, x, seed), [of_x[:1], *(gradient / 2 for gradient in rest)])


@pytest.mark.parametrize("make", [lambda: pa.nn.GloRe(8), lambda: pa.nn.A2(8), lambda: pa.nn.BATBlock(8, block_size=2)])
def test_gradients_of_each_sample_are_those_of_the_samples_alone(make):
    torch.manual_seed(0)
    block = awake(make()).double().eval()
    names, values = zip(*block.named_parameters(), strict=True)
    x = torch.randn(3, 8, 4, 6, dtype=torch.float64)

    def loss(values, one):
        return functional_call(block, dict(zip(names, values, strict=True)), (one.unsqueeze(0),)).sin().sum()

    found = vmap(grad(loss), (None, 0))(values, x)
    for number, one in enumerate(x):
        wanted = torch.autograd.grad(loss(values, one), values)
        agree([gradient[number] for gradient in found], wanted)
        agree(grad(loss)(values, one), wanted)


def test_second_derivatives_at_batch_1_are_those_of_finite_differences():
    torch.manual_seed(0)
    block = awake(pa.nn.GloRe(4)).double().eval()
    x = strided(torch.randn(1, 4, 2, 3, dtype=torch.float64), 0)
    assert torch.autograd.gradgradcheck(block, x.requires_grad_())
