"""Compare a layer of one's own with published blocks: is it the same, a special case, new, cheaper?

The published block is code as one finds it in repositories; the layer of one's own is an equation that looks different.
"""

import torch
from torch import nn

import polyattn as pa


class NonLocal(nn.Module):
    """The dot-product non-local block (Wang et al., 2018) on maps, with 1 x 1 convolutions, without its residual."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1, bias=False) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta, phi, g = (m(x).flatten(2) for m in (self.theta, self.phi, self.g))
        similarity = theta.mT @ phi / theta.shape[2]
        return self.out((g @ similarity.mT).unflatten(2, x.shape[2:]))


mine = pa.Spec("""
    x[C,H,W]; where r, s : R
    context[r,s] = 1/H/W * x[e,k,l]*wk[e,r] * x[f,k,l]*wv[f,s]    # similarities of positions are never made
    y[b,i,j] = x[c,i,j]*wq[c,r] * context[r,s] * wo[s,b]
""")
reading = pa.read(NonLocal(24, 8), (torch.randn(1, 24, 6, 7),), names={"x": "B C H W", 8: "R"})
print("the published block says\n", reading.spec, "\n", sep="")

relation = pa.relate(reading.spec, mine)
print("Is it mine? ", relation, "\n", sep="")
assert relation
assert pa.prove(relation.left, relation.right, given=[*relation.given, *relation.sizes])

gated = pa.Spec(str(mine).replace("y[b,i,j] = ", "y[b,i,j] = x[b,i,j]*"))  # each channel gated by itself
unrelated = pa.relate(reading.spec, gated)
print("Is it mine with a gate? ", unrelated, "\n", sep="")
assert not unrelated

sizes = {"H": 56, "W": 56, "C": 256, "R": 32}
theirs, written = (pa.plan(spec, sizes, "as_written") for spec in (reading.spec, mine))
print(f"as written: the published block {theirs.macs:,} MACs, mine {written.macs:,}")
print(f"as planned: the published block {pa.plan(reading.spec, sizes).macs:,}, mine {pa.plan(mine, sizes).macs:,}")
