"""Put attention into a torchvision ResNet: same outputs at first, same checkpoint keys, one training step."""

import torch
from torchvision.models import resnet18

import polyattn as pa

torch.manual_seed(0)
model = resnet18(weights=None).eval()
checkpoint = {name: tensor.clone() for name, tensor in model.state_dict().items()}
images = torch.randn(2, 3, 96, 96)
with torch.no_grad():
    before = model(images)

plain = pa.vision.cost(model, images[:1])
pa.vision.insert(
    model,
    {
        "layer2.1": pa.catalog.poly_nl(),
        "layer3.1": pa.catalog.ba_transform(),  # its P and Q have the feature map's size, found by tracing
        "layer4.0": "x[N,C]; y[a,b] = 1/N * x[a,d]*u[d,b]*x[e,b]",  # or any equation of your own
    },
    example_input=images[:1],
    sizes={"G": 4, "K": 4},
)
with torch.no_grad():
    assert torch.equal(model(images), before), "the layers start as the identity"
print(model.load_state_dict(checkpoint, strict=False).unexpected_keys or "the old checkpoint still fits")

price = pa.vision.cost(model, images[:1])
print(f"parameters {plain.parameters:,} -> {price.parameters:,}; MACs {plain.macs:,} -> {price.macs:,}")

model.train()
optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(3):
    loss = torch.nn.functional.cross_entropy(model(images), torch.tensor([3, 5]))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    betas = [round(p.item(), 5) for n, p in model.named_parameters() if n.endswith("attention.beta")]
    print(f"step {step}: loss {loss.item():.4f}, how much of each layer is mixed in: {betas}")
