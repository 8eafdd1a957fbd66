"""Blocks are made on a device, in a dtype and from a generator, as torch's modules are."""

import inspect

import pytest
import torch

import polyattn as pa

BLOCKS = {
    "A2": lambda **o: pa.nn.A2(8, **o),
    "Axial": lambda **o: pa.nn.Axial(8, **o),
    "BATBlock": lambda **o: pa.nn.BATBlock(8, block_size=2, groups=2, **o),
    "BATransform": lambda **o: pa.nn.BATransform(8, block_size=2, groups=2, **o),
    "CGNL": lambda **o: pa.nn.CGNL(8, groups=2, **o),
    "CrissCross": lambda **o: pa.nn.CrissCross(8, **o),
    "EfficientNL": lambda **o: pa.nn.EfficientNL(8, key_channels=4, value_channels=4, **o),
    "GloRe": lambda **o: pa.nn.GloRe(8, **o),
    "LatentGNN": lambda **o: pa.nn.LatentGNN(8, [4], **o),
    "NonLocal": lambda **o: pa.nn.NonLocal(8, **o),
    "PolyNL": lambda **o: pa.nn.PolyNL(8, **o),
    "TESA": lambda **o: pa.nn.TESA(8, **o),
    "Attention": lambda **o: pa.nn.Attention(pa.catalog.nl(), 8, **o),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_made_on_a_device_in_a_dtype_and_from_a_generator(name):
    make = BLOCKS[name]
    assert {"device", "dtype", "generator"} <= set(inspect.signature(getattr(pa.nn, name)).parameters)
    double = make(dtype=torch.float64)
    assert {t.dtype for t in (*double.parameters(), *double.buffers()) if t.is_floating_point()} == {torch.float64}
    on_meta = make(device="meta")
    assert {t.device.type for t in (*on_meta.parameters(), *on_meta.buffers())} == {"meta"}
    drawn = []
    for seed, other in ((3, 0), (3, 1), (4, 1)):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        drawn.append([p.detach() for p in make(generator=torch.Generator().manual_seed(seed)).parameters()])
        assert before.equal(torch.get_rng_state())  # nothing is drawn from elsewhere
    assert all(map(torch.equal, drawn[0], drawn[1]))
    assert not all(map(torch.equal, drawn[0], drawn[2]))
