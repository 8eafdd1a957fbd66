"""Replace the attention of timm's ViT by its plan: read, proved equal, with the same checkpoint.

timm's `Attention` is read to its equation, the equation runs as a `pa.nn.Layer` on the plan of its sizes, and the layer
takes the place of the module in every block. The predictions stay; the weights are the model's own.
"""

import timm
import torch
from torch import nn

import polyattn as pa

torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=10).eval()
images = torch.randn(1, 3, 224, 224)
tokens = torch.randn(1, 197, 192)
with torch.no_grad():
    before = model(images)

reading = pa.read(model.blocks[0].attn, (tokens,))
print(reading, "\n")
assert reading.is_complete

written, planned = (pa.plan(reading.spec, reading.sizes, objective) for objective in ("as_written", "forward"))
print(f"as written {written.macs:,} MACs, peak {written.peak_bytes:,} bytes")
print(f"planned    {planned.macs:,} MACs, peak {planned.peak_bytes:,} bytes\n")


class Planned(nn.Module):
    """The attention that a reading found, on its plan, with the weights of the module that was read."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        found = pa.read(attention, (tokens,))
        self.layer = pa.nn.Layer(found.spec, found.sizes)
        self.layer.load_state_dict({name: value.detach() for name, value in found.tensors.items()})

    def forward(self, x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        return self.layer(x)


attention = model.blocks[0].attn
for block in model.blocks:
    block.attn = Planned(block.attn).eval()
verdict = pa.prove(attention, model.blocks[0].attn, args=(tokens,))
print("the block and its plan, for every number of tokens:", verdict.status)
assert verdict

with torch.no_grad():
    torch.testing.assert_close(model(images), before)
print("the network's predictions are the same")
