"""1x1 convolutions as matrix products: derivatives, and what a non-local block keeps and makes in training."""

import pytest
import torch
from timm.layers.non_local_attn import NonLocalAttn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import polyattn as pa
from polyattn.nn.pointwise_conv import Turned, projected


def turned_and_plain(bias):
    """Rows of a channels-first map, with matrices and biases, through `Turned` and one after the other."""
    rows = torch.randn(2, 3, 5, dtype=torch.float64).transpose(1, 2).requires_grad_()
    weights = [torch.randn(outputs, 3, dtype=torch.float64, requires_grad=True) for outputs in (2, 4)]
    biases = [torch.randn(outputs, dtype=torch.float64, requires_grad=True) for outputs in (2, 4)] if bias else []

    def through(rows, *given):
        return Turned.apply(rows, *given, *(() if bias else (None, None)))

    def plain(rows, *given):
        return tuple(F.linear(rows, w, b) for w, b in zip(given[:2], given[2:] or (None, None), strict=True))

    return through, plain, (rows, *weights, *biases)


@pytest.mark.parametrize("bias", [True, False])
def test_turned_rows_have_the_derivatives_of_a_product(bias):
    through, plain, given = turned_and_plain(bias)
    torch.testing.assert_close(through(*given), plain(*given))
    assert torch.autograd.gradcheck(through, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(through, given)


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_a_frozen_map_matrix_or_bias_of_turned_rows_gets_no_gradient(frozen):
    through, plain, given = turned_and_plain(True)
    given[frozen].requires_grad_(False)
    leaves = [one for one in given if one.requires_grad]
    ours, theirs = (
        torch.autograd.grad(torch.cat([y.sin().flatten() for y in f(*given)]).sum(), leaves) for f in (through, plain)
    )
    torch.testing.assert_close(ours, theirs)


def test_turned_rows_can_be_mapped_over():
    through, plain, given = turned_and_plain(True)
    several = torch.randn(3, 2, 5, 3, dtype=torch.float64)
    gradient = [
        torch.func.vmap(torch.func.grad(lambda r, f=f: f(r, *given[1:])[0].sin().sum())) for f in (through, plain)
    ]
    torch.testing.assert_close(gradient[0](several), gradient[1](several))


@pytest.mark.parametrize("last", [True, False], ids=["channels last", "channels first"])
@pytest.mark.parametrize("length", [4, 300, 700])
def test_however_they_are_multiplied_projections_are_those_of_the_convolutions(length, last):
    layers = [torch.nn.Conv1d(6, outputs, 1).double() for outputs in (5, 8)]
    x = torch.randn(2, length, 6, dtype=torch.float64)
    x = x if last else x.transpose(1, 2).contiguous().transpose(1, 2)
    for few in (layers, layers[:1]):
        ours, theirs = projected(x, *few), [layer(x.transpose(1, 2)).transpose(1, 2) for layer in few]
        torch.testing.assert_close(list(ours), theirs)


def kept(block, x):
    """Bytes kept for the backward pass beyond the input and the parameters."""
    there = {t.untyped_storage().data_ptr() for t in (x, *block.parameters(), *block.buffers())}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            found[storage.data_ptr()] = storage.nbytes(), tensor  # which keeps it alive, and its address its own
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        y = block(x)
    del y
    return sum(size for size, _ in found.values())


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.most = max(self.most, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
SIDES = [(128, 3), (64, 7), (32, 14), (16, 28), (8, 40)]
"""Channels and sides of ResNet's stages, scaled down; at the last two the similarities are not kept."""


@LAYOUTS
@pytest.mark.parametrize(("channels", "side"), SIDES)
def test_a_non_local_block_keeps_queries_keys_values_their_mixture_and_what_the_norm_takes(channels, side, layout):
    batch, inner, positions = 4, channels // 2, side**2
    theirs, block = NonLocalAttn(channels, rd_channels=inner), pa.nn.NonLocal(channels)
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=layout).requires_grad_()
    map_or_sums = positions**2 if positions <= channels else positions
    side_by_side = 3 * channels * inner if positions >= 12 * inner else 0
    numbers = batch * (4 * positions * inner + positions * channels + map_or_sums) + 2 * channels + side_by_side
    assert kept(block, x) <= 4 * numbers
    assert kept(block, x) <= kept(theirs, x)


@LAYOUTS
def test_where_channels_outnumber_positions_no_step_of_training_makes_more_than_a_weight(layout):
    block = pa.nn.NonLocal(256)
    x = torch.randn(8, 256, 3, 3).contiguous(memory_format=layout).requires_grad_()
    with Largest() as made:
        block(x).sum().backward()
    assert made.most == 256 * 128
