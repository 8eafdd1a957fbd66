"""Sums over offsets of 16-bit tensors are added in float32 and rounded once, as a sum in float64 shows."""

import pytest
import torch

from polyattn.lowering.neighbourhoods import neighbourhood

PLACES, OFFSETS = 300, 41
SIZES = (("p", PLACES), ("i", PLACES), ("u", OFFSETS))
RELATIONS = (("p", (("i", 1), ("u", 1)), -20),)
EXAMPLES = [("pc->ic", None), ("pc,pc->ic", "pc"), ("ic,pc->ic", "pc"), ("ic->pc", None)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("letters", "second"), EXAMPLES)
def test_offsets_are_added_in_float32(letters, second, dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = [(1 + torch.randn(PLACES, 4, generator=generator)).to(dtype) for _ in range(2)]
    one, other = tensors[0], tensors[1] if second else None
    found = neighbourhood(one, other, letters, RELATIONS, SIZES)
    padded = [torch.nn.functional.pad(t.double(), (0, 0, 20, 20)) for t in tensors]
    windows = [p.unfold(0, OFFSETS, 1) for p in padded]  # place, channel, offset
    summed = {"pc->ic": windows[0], "pc,pc->ic": windows[0] * windows[1], "ic->pc": windows[0]}
    wanted = summed.get(letters, tensors[0].double().unsqueeze(-1) * windows[1])
    assert found.dtype == dtype
    # Products of two numbers of 16 bits are rounded before they are added.
    roundings = torch.finfo(dtype).eps * (wanted.sum(-1).abs() + (wanted.abs().sum(-1) if second else 0)) / 2
    assert bool(((found.double() - wanted.sum(-1)).abs() <= 1.01 * roundings + 1e-6).all())
