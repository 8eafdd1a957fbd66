"""Define an attention layer that nobody has published, and take it from its equation to a training step.

Each position asks its row and its column, with one shared projection, and is gated by the mean of all positions.
"""

import torch

import polyattn as pa

spec = pa.Spec("""
    x[H,W,C]; where r : R
    key[i,j,r] = x[i,j,d]*wk[d,r]
    rows[i,r,b] = 1/W * key[i,j,r]*x[i,j,h]*wr[h,b]        # what each row holds, per key channel
    columns[j,r,b] = 1/H * key[i,j,r]*x[i,j,h]*wc[h,b]
    gate[r] = mean[i,j](key[i,j,r])
    y[i,j,b] = x[i,j,d]*wq[d,r]*gate[r]*(rows[i,r,b] + columns[j,r,b])
""")
print(spec)
print(f"\ndegree {spec.degree}; parameters {spec.parameters}")
print(f"expanded: {spec.polynomial()}\n")

sizes = {"B": 8, "H": 14, "W": 14, "C": 64, "R": 16}
best, written = pa.plan(spec, sizes), pa.plan(spec, sizes, objective="as_written")
print(best)
print(f"as written it would take {written.macs:,} MACs\n")
print("the generated torch code:", pa.lower(best).code)

print(pa.verify(spec, {"H": 2, "W": 1, "C": 2, "R": 1}, level="symbolic"))

layer = pa.nn.Attention(spec, channels=64, sizes={"R": 16}, generator=torch.Generator().manual_seed(0))
optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
x = torch.randn(8, 64, 14, 14, generator=torch.Generator().manual_seed(1))
target = x.mean((2, 3), keepdim=True).expand_as(x)
for step in range(5):
    loss = torch.nn.functional.mse_loss(layer(x), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: loss {loss.item():.4f}, beta {layer.beta.item():+.4f}")
