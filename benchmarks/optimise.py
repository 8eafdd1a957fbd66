"""`pa.optimise` on twenty models: ten with a product in the dearer order, ten published ones with nothing to win.

Multiply-accumulates, peak bytes and time of each model as it was, optimised, and (of the first ten) compiled by
Inductor, in interleaved runs on two threads, float32, without gradients:
`python benchmarks/optimise.py --out benchmarks/results/optimise.json`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from _common import arguments, interleaved, limit_memory, medians, resumed, show
from torch import Tensor, nn

import polyattn as pa
from polyattn.lowering import calibrated
from polyattn.optimising.pricing import price

SIZE = 224
RUNS = 60


class Chain(nn.Module):
    """x (U V): a chain of three matrices, the two weights first."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(512, 8) / 23), nn.Parameter(torch.randn(8, 512) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ (self.u @ self.v))


class Maps(nn.Module):
    """Two linear maps in a row, the second to few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(512, 2048), nn.Linear(2048, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Readout(nn.Module):
    """Attention whose values are mapped to few channels afterwards: (attn V) W."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(256, n) for n in (64, 64, 1024))
        self.out = nn.Linear(1024, 16)

    def forward(self, x: Tensor) -> Tensor:
        attn = (self.q(x) @ self.k(x).transpose(1, 2) / 8).softmax(-1)
        return self.out(attn @ self.v(x))


class NonLocal(nn.Module):
    """A dot-product non-local block with its similarities."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(64, 32, 1) for _ in range(3))
        self.out = nn.Conv2d(32, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        theta, phi, g = (m(x).flatten(2) for m in (self.theta, self.phi, self.g))
        y = (theta.transpose(1, 2) @ phi / (H * W)) @ g.transpose(1, 2)
        return x + self.out(y.transpose(1, 2).reshape(B, -1, H, W))


class Linear(nn.Module):
    """Linear attention in the order that makes all similarities, normalised by their sums."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(128, 384), nn.Linear(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, 4, C // 4).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        similarity = q @ k.transpose(-2, -1)
        y = (similarity @ v) / similarity.sum(-1, keepdim=True)
        return self.out(y.transpose(1, 2).reshape(B, N, C))


class Heads(nn.Module):
    """Dot-product attention with heads and without softmax, divided by the number of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(128, 128) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        q, k, v = (m(x).view(B, N, 4, C // 4).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1) / N) @ v
        return self.out(y.transpose(1, 2).reshape(B, N, C))


class Bilinear(nn.Module):
    """Bilinear pooling of two maps of the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(64, 256, bias=False), nn.Linear(64, 256, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bnc,bnd->bcd", self.left(x), self.right(x)) / x.shape[1]


class Repeated(nn.Module):
    """An einsum that has its operands twice."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("bij,bjk,blk,bzl->biz", a, b, b, a)


class Pooled(nn.Module):
    """A linear map of every position, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).mean((2, 3))


class PolyNL(nn.Module):
    """Poly-NL as its paper writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(64, 64, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        context = (self.w1(x) * self.w2(x)).mean(1, keepdim=True)
        return self.w3(context * x)


WINNING: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "matrix chain": (Chain, ((8, 196, 512),)),
    "two linear maps": (Maps, ((8, 196, 512),)),
    "attention read out": (Readout, ((4, 392, 256),)),
    "non-local block": (NonLocal, ((2, 64, 40, 40),)),
    "linear attention": (Linear, ((2, 784, 128),)),
    "heads without softmax": (Heads, ((2, 784, 128),)),
    "bilinear pooling": (Bilinear, ((8, 784, 64),)),
    "repeated operands": (Repeated, ((4, 256, 256), (4, 256, 256))),
    "mean of a linear map": (Pooled, ((4, 128, 28, 28),)),
    "Poly-NL": (PolyNL, ((4, 3136, 64),)),
}
TORCHVISION = ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf")
TIMM = ("vit_tiny_patch16_224", "convnext_atto", "mixer_s32_224", "efficientnet_lite0", "poolformer_s12")


def models() -> dict[str, Callable[[], dict[str, Any]]]:
    found: dict[str, Callable[[], dict[str, Any]]] = {
        name: lambda make=make, shapes=shapes: measured(make(), shapes, True)
        for name, (make, shapes) in WINNING.items()
    }
    image = ((1, 3, SIZE, SIZE),)
    for name in TORCHVISION:
        found[name] = lambda name=name: measured(torchvision.models.get_model(name), image, False)
    for name in TIMM:
        found[name] = lambda name=name: measured(timm.create_model(name), image, False)
    return found


def measured(model: nn.Module, shapes: tuple[tuple[int, ...], ...], wins: bool) -> dict[str, Any]:
    """Return one model's counts and times; for one with nothing to win, the times of the same code twice."""
    torch.manual_seed(0)
    model.eval()
    given = [torch.randn(shape) for shape in shapes]
    planned = copy.deepcopy(model)
    started = time.monotonic()
    report = pa.optimise(planned, given)
    took = time.monotonic() - started
    with torch.no_grad():
        wanted, found = model(*given), planned(*given)
        apart = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))
        device = calibrated("cpu")
        before, after = (price(m, given, device)[0] for m in (model, planned))
        contenders = {"before": lambda: model(*given), "optimised": lambda: planned(*given)}
        if wins:
            torch._dynamo.reset()
            compiled = torch.compile(copy.deepcopy(model))
            compiled(*given)
            contenders["inductor"] = lambda: compiled(*given)
        # Two of the same code differ by what the machine does: more runs where that is all there is to see.
        seconds = interleaved(contenders, seconds=2.5 if wins else 4.0, least=15, most=RUNS if wins else 4 * RUNS)
    return {
        "regions": [{"name": r.name, "before": vars(r.before), "after": vars(r.after)} for r in report],
        "left": [list(pair) for pair in report.left],
        "macs": [before.macs, after.macs],
        "peak_bytes": [before.peak_bytes, after.peak_bytes],
        "error": apart,
        "seconds": medians(seconds),
        "optimise_seconds": took,
        "wins": wins,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    won, plain = ([r for r in runs if r["wins"] is w] for w in (True, False))
    speed = [r["seconds"]["before"] / r["seconds"]["optimised"] for r in won]
    return {
        "models": len(runs),
        "regions in models with nothing to win": sum(len(r["regions"]) for r in plain),
        "least speed-up where something is to win": min(speed, default=None),
        "least speed of a model with nothing to win": min(
            (r["seconds"]["before"] / r["seconds"]["optimised"] for r in plain), default=None
        ),
        "faster than Inductor": sum(r["seconds"]["optimised"] < r["seconds"]["inductor"] for r in won),
    }


def main() -> None:
    args = arguments(__doc__, resumable=True)
    limit_memory(24)
    runs = resumed(args, models(), summary)
    show(
        "models before and after pa.optimise, float32, no gradients",
        ("model", "regions", "MACs", "optimised", "peak", "optimised", "ms", "optimised", "Inductor"),
        [
            (
                *(r["case"], len(r["regions"]), *(f"{n:,}" for n in (*r["macs"], *r["peak_bytes"]))),
                *(1e3 * r["seconds"][k] if k in r["seconds"] else "" for k in ("before", "optimised", "inductor")),
            )
            for r in runs
        ],
    )


if __name__ == "__main__":
    main()
