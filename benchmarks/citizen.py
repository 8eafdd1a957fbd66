"""Layers as modules of PyTorch: compiled graphs, exports, new sizes, overhead, attention, frozen parts.

Each figure is beside that of a plain torch module of the same function, in one run.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from _common import arguments, interleaved, show, write
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import polyattn as pa

PARTS = ("all", "compile", "export", "sizes", "overhead", "attention", "frozen")
SIDES = range(4, 24)
CHANNELS = 16
ATTENTION = """
    q[H,N,D]; k[H,N,D]; v[H,N,D]
    p[h,i,j] = softmax[j](1/sqrt(D)*q[h,i,d]*k[h,j,d])
    y[h,i,d] = p[h,i,j]*v[h,j,d]
"""
FROZEN = {"all trained": "", "input frozen": "x", "only w3 trained": "x w1 w2", "only the input's gradient": "w1 w2 w3"}


class Plain(nn.Module):
    """Poly-NL in torch, with the residual, on the parameters of a block.

    Args:
        form: "maps" for Eq. 6 on (B, C, N), as channels-first maps lie; "rows" for Eq. 6 on (B, N, C); "Gram" for the
            Gram form.
    """

    def __init__(self, block: nn.Module, form: str = "maps"):
        super().__init__()
        self.form = form
        for name in ("w1", "w2", "w3", "alpha", "beta"):
            self.register_parameter(name, getattr(block, name))

    def forward(self, x: Tensor) -> Tensor:
        own: Any = self
        if self.form == "maps":
            columns = x.flatten(2)
            first, second, third = (w.t().unsqueeze(0) for w in (own.w1, own.w2, own.w3))
            context = ((first @ columns) * (second @ columns)).mean(2, keepdim=True)
            y = third @ (columns * context)
        elif self.form == "rows":
            rows = x.flatten(2).transpose(1, 2)
            context = ((rows @ own.w1) * (rows @ own.w2)).mean(1, keepdim=True)
            y = ((rows * context) @ own.w3).transpose(1, 2)
        else:
            rows = x.flatten(2).transpose(1, 2)
            gram = (rows.transpose(1, 2) @ rows) / rows.shape[1]
            scale = ((gram @ own.w1) * own.w2).sum(1)
            y = (rows @ (scale.unsqueeze(2) * own.w3)).transpose(1, 2)
        return torch.addcmul(own.alpha * x, own.beta, y.view(x.shape))


def both(channels: int) -> dict[str, nn.Module]:
    block = pa.nn.PolyNL(channels, beta=1.0)
    return {"plain torch": Plain(block), "PolyNL": block}


def compiled(quick: bool) -> Iterator[dict[str, Any]]:
    for name, module in both(CHANNELS).items():
        torch._dynamo.reset()
        counter = CompileCounter()
        function = torch.compile(module, backend=counter, dynamic=True, fullgraph=True)
        error = 0.0
        for side in SIDES:
            x = torch.randn(2, CHANNELS, side, side + 1)
            error = max(error, float((function(x) - module(x)).detach().abs().max()))
        yield {"part": "compile", "module": name, "sizes": len(SIDES), "graphs": counter.frame_count, "error": error}


def exported(quick: bool) -> Iterator[dict[str, Any]]:
    axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    for name, module in both(CHANNELS).items():
        program = torch.export.export(module, (torch.randn(2, CHANNELS, 6, 6),), dynamic_shapes=(axes,)).module()
        error = 0.0
        for side in SIDES:
            x = torch.randn(1 + side % 3, CHANNELS, side, side + 1)
            error = max(error, float((program(x) - module(x)).detach().abs().max()))
        yield {"part": "export", "module": name, "sizes": len(SIDES), "error": error}


def step(module: Callable[..., Tensor], *inputs: Tensor) -> None:
    module(*inputs).sum().backward()


@torch.no_grad()
def evaluate(module: Callable[..., Tensor], *inputs: Tensor) -> None:
    module(*inputs)


def new_sizes(quick: bool) -> Iterator[dict[str, Any]]:
    """Train at 25 resolutions, as detectors see them, twice: the first time every size is new."""
    sides = [(h, w) for h in (25, 28, 32, 38, 42) for w in (25, 30, 34, 38, 42)][: 6 if quick else None]
    plain = Plain(pa.nn.PolyNL(64, beta=1.0))
    modules = {"plain torch": plain, "PolyNL": pa.nn.PolyNL(64, beta=1.0), "TESA": pa.nn.TESA(64, alpha=1.0)}
    for name, module in modules.items():
        for side in (24, 26):  # the first size, and the orders for those around the second
            step(module, torch.randn(2, 64, side, side))
        gc.collect()
        times = []
        for _ in range(2):
            started = time.perf_counter()
            for h, w in sides:
                step(module, torch.randn(2, 64, h, w))
            times.append((time.perf_counter() - started) / len(sides))
        ratio = times[0] / times[1]
        yield {"part": "sizes", "module": name, "sizes": len(sides), "new": times[0], "known": times[1], "ratio": ratio}


def timed(contenders: dict[str, Callable[[], object]], quick: bool) -> dict[str, Any]:
    found = interleaved(contenders, seconds=0.4 if quick else 4, least=20, most=4000)
    return {n: statistics.median(t) for n, t in found.items()} | {"rounds": len(next(iter(found.values())))}


def overhead(quick: bool) -> Iterator[dict[str, Any]]:
    """Time PolyNL beside the operations of its plan by hand, of both layouts; the ratio is to the faster."""
    for channels in (64, 256):
        for batch in (1, 2):
            for training in (False, True):
                x = torch.randn(batch, channels, 14, 14)
                block = pa.nn.PolyNL(channels, beta=1.0)
                modules = {"PolyNL": block, "maps": Plain(block), "rows": Plain(block, "rows")}
                run = step if training else evaluate
                medians = timed({n: (lambda m=m, run=run, x=x: run(m, x)) for n, m in modules.items()}, quick)
                ratio = medians["PolyNL"] / min(medians["maps"], medians["rows"])
                case = {"channels": channels, "batch": batch, "training": training}
                yield {"part": "overhead", **case, **medians, "ratio": ratio}


def attention(quick: bool) -> Iterator[dict[str, Any]]:
    """Time an attention written as an equation beside torch's fused one, and beside its formula."""
    layer = pa.nn.Layer(ATTENTION, {"D": 16})

    def formula(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v

    modules = {"Layer": layer, "fused": scaled_dot_product_attention, "formula": formula}
    for side in (14, 28) if quick else (14, 28, 56):
        for training in (False, True):
            tensors = [torch.randn(2, 4, side * side, 16, requires_grad=training) for _ in range(3)]
            run = step if training else evaluate
            medians = timed({n: (lambda m=m, run=run, t=tensors: run(m, *t)) for n, m in modules.items()}, quick)
            ratio = medians["Layer"] / medians["fused"]
            yield {"part": "attention", "positions": side * side, "training": training, **medians, "ratio": ratio}


def macs(module: nn.Module, x: Tensor, training: bool = True) -> int:
    with FlopCounterMode(display=False) as counter:
        y = module(x)
        if training:
            y.backward(torch.ones_like(y))
    return counter.get_total_flops() // 2


def frozen(quick: bool) -> Iterator[dict[str, Any]]:
    """Count the products of both passes beside autograd's of the form whose forward pass takes fewer of them."""
    for channels, side in ((64, 14), (64, 28), (256, 14), (256, 28)):
        block = pa.nn.PolyNL(channels, beta=1.0)
        x = torch.randn(2, channels, side, side)
        forms = [Plain(block, form) for form in ("rows", "Gram")]
        cheaper = min(forms, key=lambda form, x=x: macs(form, x, training=False))
        for case, names in FROZEN.items():
            for name in ("w1", "w2", "w3"):
                getattr(block, name).requires_grad_(name not in names.split())
            x = x.detach().requires_grad_("x" not in names.split())
            own, by_hand = macs(block, x), macs(cheaper, x)
            what = {"channels": channels, "positions": side * side, "case": case, "form": cheaper.form}
            yield {"part": "frozen", **what, "PolyNL": own, "by hand": by_hand, "ratio": own / by_hand}


def main() -> None:
    args = arguments(__doc__, PARTS)
    torch.manual_seed(0)
    functions = (compiled, exported, new_sizes, overhead, attention, frozen)
    parts = dict(zip(PARTS[1:], functions, strict=True))
    runs = [run for name, part in parts.items() if args.part in ("all", name) for run in part(args.quick)]
    for name in parts:
        rows = [r for r in runs if r["part"] == name]
        if rows:
            head = [k for k in rows[0] if k != "part"]
            show(name, head, [[r[k] for k in head] for r in rows])
    worst = {p: max((r["ratio"] for r in runs if r["part"] == p), default=None) for p in PARTS[3:]}
    graphs = {r["module"]: r["graphs"] for r in runs if r["part"] == "compile"}
    write(args, {"worst ratios": worst, "graphs": graphs}, runs)


if __name__ == "__main__":
    main()
