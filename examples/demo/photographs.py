"""Part three of the demo: each layer inside torchvision's ResNet-50, forward and backward on two photographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.transforms import functional as transforms

from polyattn.algebra import Spec
from polyattn.vision import cost, insert

PLACES = ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5")
"""After every second residual block of Res3 and Res4, as in the papers."""

SIZES = {"R": 64, "V": 64, "G": 4, "K": 4}


def photographs() -> Tensor:
    """Load scikit-learn's two photographs as one batch (2, 3, 224, 224), normalised as for ImageNet."""
    images = []
    for array in load_sample_images().images:
        # A copy, since the bundled array is read-only and torch warns of such memory.
        image = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255
        image = transforms.center_crop(transforms.resize(image, [256], antialias=True), [224, 224])
        images.append(transforms.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return torch.stack(images)


def run_photographs(specs: dict[str, Spec], console: Console, out: Path) -> list[dict[str, Any]]:
    """Insert each layer five times, run one forward and backward pass; print and return the costs."""
    batch = photographs()
    rows: list[dict[str, Any]] = []
    for name in track([None, *specs], description="ResNet-50", console=console, transient=True):
        # The same initial weights for every network, so that their outputs can be compared.
        torch.manual_seed(0)
        model = resnet50(weights=None)
        if name is not None:
            sizes = {s: v for s, v in SIZES.items() if s in specs[name].sizes.names}
            insert(model, dict.fromkeys(PLACES, specs[name]), sizes=sizes)
        rows.append(_measure(name or "no attention", model, batch))
    table = Table("network", "params", "added", "GMACs", "added", "seconds", "output")
    base = rows[0]
    for row in rows:
        row["parameters_added"] = row["parameters"] - base["parameters"]
        row["macs_added"] = row["macs_per_image"] - base["macs_per_image"]
        same = "as without" if row["output"] == base["output"] else "changed"
        table.add_row(
            row["network"], f"{row['parameters'] / 1e6:.2f} M", f"{row['parameters_added'] / 1e6:.2f} M",
            f"{row['macs_per_image'] / 1e9:.3f}", f"{row['macs_added'] / 1e9:.3f}", f"{row['seconds']:.2f}", same,
        )  # fmt: skip
    console.print(table)
    console.print(
        "GMACs: of one image, in billions of multiply-accumulates; seconds: forward and backward, both images"
    )
    console.print("output: the layers start as the identity, so a trained network keeps its outputs when one is put in")
    return rows


def _measure(name: str, model: nn.Module, batch: Tensor) -> dict[str, Any]:
    price = cost(model, batch[:1])
    # In evaluation mode batch norms do not depend on the batch.
    model.eval()
    with torch.no_grad():
        output = model(batch)
    model.train()
    start = time.perf_counter()
    loss = nn.functional.cross_entropy(model(batch), torch.tensor([0, 1]))
    loss.backward()
    seconds = time.perf_counter() - start
    # A layer that starts as the identity still has to pass gradients to all its parameters.
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if missing:
        raise RuntimeError(f"parameters without a finite gradient: {', '.join(missing[:3])}")
    return {
        "network": name,
        "parameters": price.parameters,
        "macs_per_image": price.macs,
        "seconds": seconds,
        "output": [round(v, 4) for v in output.flatten()[:5].tolist()],
    }
