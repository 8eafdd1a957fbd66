"""Facts of layers under a memory limit: they run within it, compute the same, and refuse what no plan keeps to."""

import re
from collections.abc import Callable

import pytest
import torch

import polyattn as pa

SPEC = "x[N,C]; y[a,b] = x[a,d]*w[d,f]*x[e,f]*x[e,b]"


def test_a_layer_keeps_to_its_limit_and_computes_the_same():
    x = torch.randn(2, 36, 8, dtype=torch.float64)
    free = pa.nn.Layer(SPEC, {"C": 8})
    with pytest.raises(pa.BudgetError, match="memory_limit=") as caught:
        pa.nn.Layer(SPEC, {"C": 8}, memory_limit=1)(x.float())
    least = int(re.search(r"memory_limit=(\d+)", str(caught.value))[1])  # pyright: ignore[reportOptionalSubscript]
    tight = pa.nn.Layer(SPEC, {"C": 8}, memory_limit=least)
    tight.load_state_dict(free.state_dict())
    gradients = []
    for layer in (free.double(), tight.double()):
        given = x.clone().requires_grad_()
        layer(given).square().sum().backward()
        gradients += [given.grad, layer.w.grad]
    torch.testing.assert_close(gradients[:2], gradients[2:])
    with torch.no_grad():  # one forward pass keeps to a smaller limit than both
        torch.testing.assert_close(free(x), tight(x))
    assert tight.memory_limit == least


def test_the_plan_of_a_block_keeps_to_its_limit():
    block = pa.nn.PolyNL(8, memory_limit=20_000)
    assert block.running_plan({"N": 64}).peak_bytes <= 20_000
    assert block(torch.randn(1, 8, 8, 8)).shape == (1, 8, 8, 8)
    with pytest.raises(pa.BudgetError, match=r"memory_limit=\d+"):
        pa.nn.PolyNL(8, memory_limit=100)(torch.randn(1, 8, 8, 8))


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1M"])
def test_a_limit_is_a_whole_number_of_bytes(limit: object):
    with pytest.raises(pa.SizeError, match="memory_limit is a whole number of bytes"):
        pa.nn.Attention("x[N,C]; y[a,b] = x[a,d]*w[d,b]", 4, memory_limit=limit)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "block",
    [
        *(pa.nn.A2, pa.nn.CrissCross, pa.nn.EfficientNL, pa.nn.GloRe, pa.nn.LatentGNN),
        pytest.param(pa.nn.CGNL, marks=pytest.mark.nightly),  # whose equation has many orders
    ],
)
def test_the_parts_of_a_block_keep_to_its_limit(block: Callable[..., torch.nn.Module]):
    """With the smallest limit that all parts keep to, found from the errors, the block computes the same."""
    x, options = torch.randn(1, 16, 6, 6), {"latent_dims": [3]} if block is pa.nn.LatentGNN else {}
    free, limit = block(16, **options).eval(), 1
    while True:
        tight = block(16, **options, memory_limit=limit).eval()
        tight.load_state_dict(free.state_dict())
        try:
            found = tight(x)
            break
        except pa.BudgetError as error:
            limit, before = int(re.findall(r"memory_limit=(\d+)", str(error))[-1]), limit
            assert limit > before
    assert limit > 1
    torch.testing.assert_close(found, free(x))
