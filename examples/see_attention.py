"""See attention: BAT maps, norms and Grad-CAM of a small network that tells crops of two photographs apart.

The network learns for a few steps, from scratch: enough for maps to show something, not for them to be good.
Figures go to a folder, by default demo-results/.
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images

import polyattn as pa

SIDE = 64
STEPS = 16

torch.manual_seed(0)
photographs = [torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 for array in load_sample_images().images]
photographs = [(picture - picture.mean()) / picture.std() for picture in photographs]


def crops(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random squares of both photographs, and which of them each is from."""
    labels = torch.arange(number) % 2
    squares = []
    for label in labels.tolist():
        i, j = (int(torch.randint(0, n - SIDE, ())) for n in photographs[label].shape[1:])
        squares.append(photographs[label][:, i : i + SIDE, j : j + SIDE])
    return torch.stack(squares), labels


model = pa.vision.resnet18({"layer2.1": "bat", "layer3.0": "poly_nl"}, num_classes=2, image_size=SIDE)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(STEPS):
    images, labels = crops(16)
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if step % 8 == 7:
        print(f"step {step + 1}: loss {loss.item():.3f}")

model.eval()
wide = torch.stack([torch.nn.functional.interpolate(p[None], scale_factor=0.5)[0] for p in photographs])
print("photographs of", tuple(wide.shape[2:]), "pixels are told apart:", model(wide).argmax(1).tolist() == [0, 1])

out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results")
out.mkdir(parents=True, exist_ok=True)

((name, weights),) = pa.vision.bat_maps(model, wide).items()
print(f"{name}: weights of (images, groups, height, width) = {weights.shape}, mean {weights.mean():.3f}")
groups = {f"group {g + 1}": weights[:, g] for g in range(weights.shape[1])}
pa.vision.overlay(wide, groups, title="BAT, Eq. 8: the weight of each position").savefig(out / "bat_maps.png", dpi=120)

found = pa.vision.norms(model, wide, place="layer3.0")
share = (found.y**2).sum() / (found.z**2).sum()
print(f"layer3.0: the attention is {100 * share:.2f} % of the output's squared norm")
norms = {"|X|": found.x, "|Y|": found.y, "|Z|": found.z}
pa.vision.overlay(wide, norms, title="Poly-NL, Fig. 4: input, attention, output").savefig(out / "norms.png", dpi=120)

cams = {f"for {name}": pa.vision.grad_cam(model, wide, "layer4", k) for k, name in enumerate(("china", "flower"))}
pa.vision.overlay(wide, cams, title="Grad-CAM").savefig(out / "grad_cam.png", dpi=120)
print(f"figures: bat_maps.png, norms.png and grad_cam.png in {out}/")
