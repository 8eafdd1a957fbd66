"""What planning costs: at new sizes, from the cache, and what a module adds to the same operations by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, interleaved, ratio, show, sizes_of, write
from torch import Tensor

from polyattn import catalog, nn, plan

POSITIONS, CHANNELS = 196, 256


def timed(call: Callable[[], object]) -> float:
    """Seconds, to the nanosecond."""
    start = time.perf_counter()
    call()
    return round(time.perf_counter() - start, 9)


def measure(name: str, objective: str, repeats: int) -> dict[str, Any]:
    spec = catalog.get(name)
    points = [{"B": 2, **sizes_of(spec, 28, 28, 64 * (k + 1))} for k in range(repeats + 1)]
    plan(spec, points[0], objective)  # the expansion of the specification is made once
    new = [timed(lambda p=p: plan(spec, p, objective)) for p in points[1:]]
    cached = [timed(lambda: plan(spec, points[0], objective)) for _ in range(200)]
    return {"layer": name, "objective": objective, "new": new, "cached": cached}


def by_hand(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Poly-NL as its plan has it at N < C: the Hadamard form, then the residual."""
    rows = x.flatten(2).transpose(1, 2)
    y = (((rows @ w1) * (rows @ w2)).mean(1, keepdim=True) * rows) @ w3
    return alpha * x + beta * y.transpose(1, 2).unflatten(2, x.shape[2:])


class ByHand(torch.nn.Module):
    """The same as a layer of a network, with the parameters of another."""

    w1: Tensor
    w2: Tensor
    w3: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, layer: nn.Attention):
        super().__init__()
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        y = (((rows @ self.w1) * (rows @ self.w2)).mean(1, keepdim=True) * rows) @ self.w3
        return self.alpha * x + self.beta * y.transpose(1, 2).unflatten(2, x.shape[2:])


def module(seconds: float) -> list[dict[str, Any]]:
    """The module against the operations by hand: as a module, which calls have a price of their own, and as a function.

    Each pair is timed by itself: with more programs that are alike in turn, Python's own data stays in the caches.
    """
    layer = nn.Attention(catalog.poly_nl(), CHANNELS, beta=1.0)
    parameters = [layer.get_parameter(name) for name in ("w1", "w2", "w3", "alpha", "beta")]
    x = torch.randn(1, CHANNELS, 14, 14, requires_grad=True)
    written = {"module by hand": ByHand(layer), "function by hand": lambda x: by_hand(x, *parameters)}
    for call in written.values():
        torch.testing.assert_close(layer(x), call(x), rtol=1e-3, atol=1e-3)

    def forward(call: Callable[..., Tensor]) -> object:
        with torch.no_grad():
            return call(x)

    def training(call: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(call(x).sum(), [x, *parameters])

    found = []
    for which, run in (("forward", forward), ("forward + backward", training)):
        for other, call in written.items():
            both = {"module": lambda run=run: run(layer), other: lambda run=run, call=call: run(call)}
            times = interleaved(both, seconds=seconds, most=2000)
            rounded = {name: [round(t, 9) for t in taken] for name, taken in times.items()}
            found.append({"pass": which, "against": other, "ratio": ratio(times, "module", other), "seconds": rounded})
    return found


def main() -> None:
    args = arguments(__doc__)
    repeats = 3 if args.quick else 15
    runs = [measure(n, o, repeats) for n in catalog.names("third_order") for o in ("forward", "training")]
    rows = []
    for r in runs:
        new, cached = 1e3 * statistics.median(r["new"]), 1e6 * statistics.median(r["cached"])
        rows.append([r["layer"], r["objective"], new, 1e3 * max(r["new"]), cached])
    show("planning", ("layer", "objective", "ms at new sizes", "worst", "µs from the cache"), rows)
    modules = module(1.0 if args.quick else 20.0)
    head = ("pass", "against", "time of the module to it")
    show("module at (B, N, C) = (1, 196, 256)", head, [list(m.values())[:3] for m in modules])
    summary = {
        "worst median ms at new sizes": max(1e3 * statistics.median(r["new"]) for r in runs),
        "worst median µs from the cache": max(1e6 * statistics.median(r["cached"]) for r in runs),
        "module": [{k: v for k, v in m.items() if k != "seconds"} for m in modules],
    }
    write(args, summary, [*runs, *modules])


if __name__ == "__main__":
    main()
