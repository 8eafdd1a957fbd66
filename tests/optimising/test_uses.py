"""Optimised models: autocast, channels-last memory, compilers, wrappers, 16 bits and other weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import polyattn as pa
from tests.optimising.models import WrittenOut


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 16, 1), WrittenOut()).eval(), torch.randn(2, 3, 20, 20)
    before = copy.deepcopy(model)
    assert len(pa.optimise(model, x)) == 1
    return before, model, x


def close(a, b, rtol=1e-4):
    assert a.dtype == b.dtype
    assert a.stride() == b.stride()
    torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.detach().abs().max()))


def test_autocast_gives_the_type_of_the_model_as_it_was(pair):
    before, model, x = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(model(x), before(x), 3e-2)


def test_channels_last_memory_stays(pair):
    before, model, x = (copy.deepcopy(v) if isinstance(v, nn.Module) else v for v in pair)
    x = x.to(memory_format=torch.channels_last)
    model, before = (m.to(memory_format=torch.channels_last) for m in (model, before))
    close(model(x), before(x))


def test_a_model_in_float64_and_one_of_16_bits_run_on_their_plans(pair):
    before, model, x = pair
    for dtype, rtol in ((torch.float64, 1e-10), (torch.bfloat16, 5e-2)):
        close(copy.deepcopy(model).to(dtype)(x.to(dtype)), copy.deepcopy(before).to(dtype)(x.to(dtype)), rtol)


def test_dynamo_follows_an_optimised_model_without_a_break(pair):
    before, model, x = pair
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(x), before(x))
    torch._dynamo.reset()


def test_other_weights_are_those_that_run(pair):
    before, model, x = pair
    weights = {n: p + 0.1 for n, p in model.named_parameters()}
    close(torch.func.functional_call(model, weights, (x,)), torch.func.functional_call(before, weights, (x,)))


def test_ddp_and_fsdp_wrap_an_optimised_model(pair, tmp_path):
    before, model, x = pair
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(copy.deepcopy(model))
        y = wrapped(x)
        y.sum().backward()
        close(y, before(x))
        assert all(p.grad is not None for p in wrapped.parameters())
        sharded = copy.deepcopy(model)
        # A submodule inside the region has its own shard: the code as it was runs, with its hooks.
        fully_shard(sharded[1].theta)
        fully_shard(sharded[1])
        fully_shard(sharded)
        y = sharded(x)
        y.sum().backward()
        close(y, before(x))
        whole = copy.deepcopy(model)
        fully_shard(whole)
        close(whole(x), before(x))
    finally:
        dist.destroy_process_group()
