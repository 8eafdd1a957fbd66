"""Calls of a chunked layer are values of their own: interrupted, interleaved, concurrent, in other modes and dtypes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polyattn as pa
from tests.parallel.cases import made

NARROWED = (
    "poly_nl",
    "e_nl softmax",
    "EfficientNL",
    "A2",
    "CGNL",
    "NonLocal",
    "BATransform downsample",
    "a small network",
)
"""Layers in which autocast meets sums, maxima, norms, averages, and dtypes that change from layer to layer."""
GREATEST = "x[N,C]; m[b] = max[e](x[e,b]); y[a,b] = x[a,b] + m[b]"


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stepped(layer: nn.Module, x: Tensor, seed: Tensor | None = None) -> list[Tensor]:
    """The output, the input's gradient and the parameters' gradients."""
    own = x.clone().requires_grad_()
    y = layer(own)
    found = torch.autograd.grad(y, (own, *layer.parameters()), torch.ones_like(y) if seed is None else seed)
    return [y.detach(), *found]


def assert_same(mine: list[Tensor], theirs: list[Tensor], off: float = 1e-10) -> None:
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=off, atol=off)


class Interrupted(Exception):
    """As Ctrl-C, or memory that is all used."""


class Failing(nn.ReLU):
    """Raises at one of its calls."""

    def __init__(self, at: int):
        super().__init__()
        self.left = [at]

    def forward(self, input: Tensor) -> Tensor:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise Interrupted
        return super().forward(input)


@pytest.mark.parametrize("name", ["e_nl softmax", "BATransform downsample"])
def test_threads_that_share_a_layer_get_its_results_of_one_thread(name: str):
    layer = made(name, torch.float64).eval()
    streamed = pa.nn.chunked(layer, positions=10)
    maps = [drawn(1, 8, 4 + k % 2, 5, seed=k, dtype=torch.float64) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda x: stepped(streamed, x), maps))
    for x, found in zip(maps, results, strict=True):
        assert_same(found, stepped(layer, x))


def test_threads_may_differentiate_one_call_at_the_same_time():
    layer, x = made("e_nl softmax", torch.float64), drawn(2, 8, 7, 4, dtype=torch.float64)
    own = x.clone().requires_grad_()
    y = pa.nn.chunked(layer, positions=8)(own)
    seeds = [drawn(*y.shape, seed=k, dtype=torch.float64) for k in range(8)]

    def gradients(seed: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(y, (own, *layer.parameters()), seed, retain_graph=True))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(gradients, seeds))
    for seed, found in zip(seeds, results, strict=True):
        assert_same(found, stepped(layer, x, seed)[1:])


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("at", [1, 2, 4, 6, 7])
def test_a_call_after_an_interrupted_one_is_as_any_other(at: int, batch: int):
    failing = Failing(at)
    layer = nn.Sequential(failing, made("e_nl softmax", torch.float64))
    streamed = pa.nn.chunked(layer, positions=8)
    with pytest.raises(Interrupted):
        streamed(drawn(2, 8, 4, 4, seed=5, dtype=torch.float64))
    x = drawn(batch, 8, 4, 4, dtype=torch.float64)
    found = stepped(streamed, x)
    assert_same(found, stepped(layer, x))


def test_a_backward_pass_after_an_interrupted_one_is_as_any_other():
    failing = Failing(100)
    layer = nn.Sequential(failing, made("e_nl softmax", torch.float64))
    x, seed = (drawn(2, 8, 4, 4, seed=k, dtype=torch.float64) for k in range(2))
    own = x.clone().requires_grad_()
    y = pa.nn.chunked(layer, positions=8)(own)
    before = [p.requires_grad for p in layer.parameters()]
    failing.left[0] = 4
    with pytest.raises(Interrupted):
        torch.autograd.grad(y, own, seed, retain_graph=True)
    assert [p.requires_grad for p in layer.parameters()] == before
    found = torch.autograd.grad(y, (own, *layer.parameters()), seed)
    assert_same([y.detach(), *found], stepped(layer, x, seed))


def test_a_hook_may_call_the_layer_that_it_belongs_to():
    layer = made("a small network", torch.float64).eval()
    inner: list[list[Tensor]] = []
    streamed = pa.nn.chunked(layer, positions=10)
    x, other = drawn(2, 8, 4, 5, dtype=torch.float64), drawn(1, 8, 3, 5, seed=1, dtype=torch.float64)
    wanted, meanwhile = stepped(layer, x), stepped(layer, other)

    def again(*_: object) -> None:
        if not inner:
            inner.append([])
            with torch.enable_grad():
                inner[0] = stepped(streamed, other)

    handle = layer[3].register_forward_hook(again)
    found = stepped(streamed, x)
    handle.remove()
    assert_same(found, wanted)
    assert_same(inner[0], meanwhile)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["BATransform downsample", "a small network"])
def test_a_backward_pass_is_that_of_the_mode_in_which_the_layer_was_called(name: str, first: bool):
    layer = made(name, torch.float64).train(first)
    streamed = pa.nn.chunked(layer, positions=10)
    own = drawn(2, 8, 7, 5, dtype=torch.float64).requires_grad_()
    calls = []
    for mode in (first, not first):
        layer.train(mode)
        alone = copy.deepcopy(layer)
        calls.append((streamed(own), stepped(alone, own.detach())))
        assert_same(list(layer.buffers()), list(alone.buffers()))
    for y, wanted in calls:
        assert_same([y.detach(), *torch.autograd.grad(y, (own, *layer.parameters()), torch.ones_like(y))], wanted)


@pytest.mark.parametrize("name", NARROWED)
def test_under_autocast_output_and_gradients_have_the_layers_dtypes_also_outside_of_the_block(name: str):
    layer, x = made(name, torch.float32), drawn(2, 8, 7, 5)
    results = []
    for module in (pa.nn.chunked(copy.deepcopy(layer), positions=10), copy.deepcopy(layer)):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(own)
        y.sum().backward()
        results.append([y.detach(), own.grad, *(p.grad for p in module.parameters())])
    right = stepped(copy.deepcopy(layer).double(), x.double())
    scale = max(float(r.abs().max()) for r in right)
    for mine, theirs, exact in zip(*results, right, strict=True):
        assert mine.dtype == theirs.dtype
        off = float((theirs.double() - exact).abs().max())
        assert float((mine.double() - exact).abs().max()) <= 2 * off + 0.01 * scale


@pytest.mark.parametrize("inside", [True, False])
def test_a_call_outside_of_autocast_is_differentiated_outside_of_it(inside: bool):
    layer, x = made("poly_nl", torch.float32), drawn(2, 8, 7, 5)
    own, streamed = x.clone().requires_grad_(), pa.nn.chunked(layer, positions=10)
    y = streamed(own)
    with torch.autocast("cpu", torch.bfloat16, enabled=inside):
        (found,) = torch.autograd.grad(y, own, torch.ones_like(y))
    assert_same([found], [stepped(layer, x)[1]], off=1e-4)


def greatest(values: list[float], dtype: torch.dtype, positions: int) -> list[float]:
    """The input's gradient of the sum of x + max(x), piece by piece."""
    layer = pa.nn.Attention(GREATEST, 1, residual=False)
    x = torch.tensor(values, dtype=dtype).view(1, 1, -1).requires_grad_()
    pa.nn.chunked(layer, positions)(x).sum().backward()
    assert x.grad is not None
    return x.grad.flatten().tolist()


@pytest.mark.parametrize("positions", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (torch.bfloat16, [100.0, 60.0, 99.0]),
        (torch.float16, [100.0, 99.0, 98.0]),
        (torch.float32, [1.0, 1.0 - 2e-6, 1.0 - 1e-6]),
        (torch.float64, [1.0, 1.0 - 1e-15, 1.0 - 2e-15]),
    ],
)
def test_the_gradient_of_a_maximum_goes_to_the_maximum_only(dtype: torch.dtype, values: list[float], positions: int):
    assert greatest(values, dtype, positions) == [4.0, 1.0, 1.0]


@pytest.mark.parametrize("positions", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_equal_maxima_share_the_gradient_wherever_they_are(positions: int, dtype: torch.dtype):
    assert greatest([7.0, 3.0, 7.0, 6.96875, 7.0, 7.0], dtype, positions) == [2.5, 1.0, 2.5, 1.0, 2.5, 2.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_equal_maxima_are_counted_in_more_than_16_bits(dtype: torch.dtype):
    """6,003 maxima of 60,000: 2,048 is float16's last number with a successor, 65,504 its last of all."""
    count = 6003
    layer = pa.nn.Attention(GREATEST, 1, residual=False)
    x = torch.full((1, 1, count), 60000.0, dtype=dtype).requires_grad_()
    y = pa.nn.chunked(layer, 1000)(x)
    y.backward(torch.full_like(y, 0.5).index_fill_(2, torch.tensor([0]), 1.0))
    wanted = 0.5 + (0.5 * count + 0.5) / count
    torch.testing.assert_close(x.grad[0, 0, 1:].float().mean().item(), wanted, rtol=1e-2, atol=0)


def test_an_infinite_maximum_stays_infinite():
    layer = pa.nn.Attention(GREATEST, 1, residual=False)
    x = torch.tensor([torch.inf, 1.0, 2.0]).view(1, 1, -1).requires_grad_()
    assert pa.nn.chunked(layer, 1)(x).flatten().tolist() == [torch.inf] * 3


def test_a_maximum_is_one_pass_forward_and_none_where_nothing_is_differentiated():
    calls: list[int] = []
    layer = nn.Sequential(pa.nn.Attention(GREATEST, 2, residual=False))
    layer[0].register_forward_pre_hook(lambda *_: calls.append(1))
    streamed, x = pa.nn.chunked(layer, 1), drawn(1, 2, 5)
    with torch.no_grad():
        streamed(x)
    assert len(calls) == 10
    calls.clear()
    streamed(x.requires_grad_())
    assert len(calls) == 10


@pytest.mark.parametrize("which", ["parameter", "input"])
def test_a_tensor_changed_in_place_before_the_backward_pass_is_refused_as_autograd_does(which: str):
    layer = made("poly_nl", torch.float32)
    x = drawn(1, 8, 4, 4).requires_grad_()
    given = x * 1
    y = pa.nn.chunked(layer, 8)(given)
    with torch.no_grad():
        (layer.w1 if which == "parameter" else given).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_running_statistics_that_change_before_the_backward_pass_do_not_change_it():
    layer = nn.Sequential(nn.BatchNorm2d(8), made("poly_nl", torch.float64)).double().eval()
    x = drawn(2, 8, 4, 4, dtype=torch.float64)
    wanted, own = stepped(layer, x), x.clone().requires_grad_()
    y = pa.nn.chunked(layer, 8)(own)
    layer[0].running_mean.add_(1)
    assert_same(list(torch.autograd.grad(y, own, torch.ones_like(y))), wanted[1:2])


def test_calls_in_training_may_follow_each_other_before_the_backward_pass():
    layer = nn.Sequential(nn.BatchNorm2d(8), made("poly_nl", torch.float64)).double()
    alone, streamed = copy.deepcopy(layer), pa.nn.chunked(layer, 8)
    maps = [drawn(2, 8, 4, 4, seed=k, dtype=torch.float64) for k in range(3)]
    for module in (streamed, alone):
        sum(module(x).square().sum() for x in maps).backward()
    assert_same([p.grad for p in layer.parameters()], [p.grad for p in alone.parameters()], off=1e-8)
    assert_same(list(layer.buffers()), list(alone.buffers()))


def test_a_layer_without_parameters_runs():
    x = drawn(2, 3, 5, 4).requires_grad_()
    for layer in (nn.ReLU(), nn.BatchNorm2d(3, affine=False), pa.nn.Attention(GREATEST, 3, residual=False)):
        assert_same(stepped(pa.nn.chunked(layer, 4), x.detach()), stepped(copy.deepcopy(layer), x.detach()), off=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_is_that_of_the_layer_from_the_same_seed(p: float):
    layer = nn.Sequential(nn.Dropout2d(p), made("poly_nl", torch.float64), nn.Dropout2d(p))
    x, results = drawn(2, 8, 4, 4, dtype=torch.float64), []
    for module in (pa.nn.chunked(layer, 4), layer):
        torch.manual_seed(0)
        results.append([*stepped(module, x), torch.rand(1, dtype=torch.float64)])
    assert_same(*results)


def test_a_module_that_is_used_twice_is_one_module():
    core = made("poly_nl", torch.float64)
    layer = nn.Sequential(core, nn.ReLU(), core)
    x = drawn(2, 8, 4, 4, dtype=torch.float64)
    assert_same(stepped(pa.nn.chunked(layer, 4), x), stepped(layer, x))


@pytest.mark.parametrize("outer", [1, 6])
def test_an_output_of_other_channels_has_them(outer: int):
    layer = nn.Sequential(made("poly_nl", torch.float64), nn.Conv2d(8, outer, 1)).double()
    x = drawn(2, 8, 4, 4, dtype=torch.float64)
    assert_same(stepped(pa.nn.chunked(layer, 4), x), stepped(layer, x))


def test_a_layer_that_works_in_place_changes_neither_the_map_nor_the_result():
    layer = nn.Sequential(nn.SiLU(inplace=True), made("poly_nl", torch.float64))
    x = drawn(2, 8, 4, 4, dtype=torch.float64)
    before, streamed = x.clone(), pa.nn.chunked(layer, 4)
    wanted = stepped(nn.Sequential(nn.SiLU(), layer[1]), x)
    with torch.no_grad():
        assert_same([streamed(x)], wanted[:1])
    assert_same([x], [before], off=0)
    assert_same(stepped(streamed, x), wanted)


def test_a_call_leaves_nothing_on_the_layer():
    layer = made("BATransform downsample", torch.float64)
    streamed = pa.nn.chunked(layer, 10)
    before = [dict(m.__dict__) for m in streamed.modules()]
    stepped(streamed, drawn(2, 8, 7, 5, dtype=torch.float64))
    assert [m.__dict__.keys() for m in streamed.modules()] == [b.keys() for b in before]
    for module, held in zip(streamed.modules(), before, strict=True):
        assert all(module.__dict__[name] is value for name, value in held.items())
    restored = pickle.loads(pickle.dumps(streamed))
    assert_same(
        stepped(restored, drawn(2, 8, 7, 5, dtype=torch.float64)),
        stepped(streamed, drawn(2, 8, 7, 5, dtype=torch.float64)),
    )


def arrays(count: int, *shape: int) -> list[np.ndarray]:
    return [drawn(*shape, seed=k).numpy() for k in range(count)]


def test_arrays_may_be_overwritten_where_they_are_not_read_again():
    layer = pa.nn.Attention(pa.catalog.poly_nl(), 8, beta=1.0)
    streamed = pa.nn.chunked(layer, positions=16)
    x, seed, y, dx = arrays(4, 1, 8, 50)
    streamed.stream(x, y)
    streamed.stream_backward(x, seed, dx)
    assert np.array_equal(streamed.stream_backward(x, seed.copy(), seed), dx)
    assert np.array_equal(streamed.stream(x, x), y)


@pytest.mark.parametrize("overlap", ["x", "view", "shifted gradient"])
def test_an_output_that_would_overwrite_what_is_read_again_is_refused(overlap: str):
    streamed = pa.nn.chunked(pa.nn.Attention(pa.catalog.poly_nl(), 8), positions=16)
    x, seed = arrays(2, 2, 8, 50)
    before = x.copy(), seed.copy()
    if overlap == "shifted gradient":
        given, seed, out = x[:1], seed[0:1, :, :], np.lib.stride_tricks.sliding_window_view(seed.reshape(-1), 400)[200]
        out = out.reshape(1, 8, 50)
    else:
        given, out = x, x if overlap == "x" else x[:]
    with pytest.raises(pa.SizeError, match="`out` shares memory"):
        streamed.stream_backward(given, seed, out)
    assert np.array_equal(x, before[0])


def test_maps_of_one_file_may_be_of_parts_that_do_not_overlap(tmp_path):
    values, rows = drawn(2, 8, 50).numpy(), (1, 8, 50)
    np.memmap(tmp_path / "x", np.float32, "w+", shape=(2, 8, 50))[:] = values
    both = np.memmap(tmp_path / "x", np.float32, "r+", shape=(2, 8, 50))
    x, other = (np.memmap(tmp_path / "x", np.float32, "r+", 4 * 400 * k, rows) for k in range(2))
    streamed = pa.nn.chunked(pa.nn.Attention(pa.catalog.poly_nl(), 8), positions=16)
    for out in (both[:1], np.asarray(both[0:1])):
        with pytest.raises(pa.SizeError, match="`out` shares memory"):
            streamed.stream_backward(x, np.ones(rows, np.float32), out)
    assert np.array_equal(both, values)
    found = streamed.stream_backward(values[:1], np.ones(rows, np.float32), np.empty(rows, np.float32))
    assert np.array_equal(streamed.stream_backward(x, np.ones(rows, np.float32), other), found)
    assert np.array_equal(both[1:], found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: s(torch.ones(1, 8)), r"`x` must have the shape \(B, C, \*spatial\)"),
        (lambda s, x: s(torch.ones(1, 8, 0, 3)), "`x`.*positions"),
        (lambda s, x: s(torch.ones(1, 8, 3, 3, dtype=torch.int64)), "`x`.*floating"),
        (lambda s, x: s.stream(x.astype(">f4"), x), "`x`.*float32"),
        (lambda s, x: s.stream(x, x[:, :4].copy()), "differ"),
    ],
)
def test_maps_that_a_layer_does_not_take_are_refused(call: Callable, message: str):
    streamed = pa.nn.chunked(pa.nn.PolyNL(8), positions=16)
    with pytest.raises(pa.SizeError, match=message):
        call(streamed, np.ones((1, 8, 5, 5), np.float32))
