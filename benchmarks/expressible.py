"""timm's attention-like layers as equations: which can be said, are they equal, and are their plans as fast?

The equation is what `pa.read` gives, or one written by hand in `_timm_equations.py`. Values and the input's gradient
are compared in float64 with the module's own weights; times are of float32 graphs, forward and forward with backward.

python benchmarks/expressible.py --out benchmarks/results/expressible.json --part values
python benchmarks/expressible.py --out benchmarks/results/expressible.json --part times
"""

from __future__ import annotations

import json
import signal
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, geometric_mean, interleaved, show, write
from _timm_equations import WRITTEN
from _timm_layers import all_layers, layer
from torch import Tensor, nn

import polyattn as pa

Function = Callable[..., Tensor]
WORST = 1e-9
"""The largest relative difference of an equal layer, in float64."""
SINGLE = {"DiffAttention": 1e-6}
"""Layers whose module computes a part in float32 whatever its input: DiffAttention its lambda."""
LONGEST = 25
"""Seconds after which planning and timing of a layer are given up."""


class Layer:
    """A layer of timm and its equation, as functions of the same input."""

    def __init__(self, name: str, kind: type[nn.Module]):
        self.module, self.x, self.options = layer(kind)
        self.tensors: dict[str, Tensor] = {}
        if name in WRITTEN:
            written = WRITTEN[name]
            self.way, self.spec = "written", pa.Spec(written.text)
            sizes = written.sizes(self.module, self.x)
            with torch.no_grad():
                self.tensors = {n: t.clone() for n, t in written.weights(self.module).items()}
            self.sizes = {"B": len(self.x), **{s: n for s, n in sizes.items() if s in self.spec.sizes.names}}
            self.enter, self.leave = (lambda x: [x]), written.leave
            return
        reading = pa.read(self.module, (self.x,), self.options or None)
        if not reading.is_complete:
            cut = reading.cuts[0]
            raise pa.ReadingError(f"{cut.operation}: {cut.reason}")
        self.way, self.spec = "read", reading.spec
        names = list(self.spec.inputs)
        self.tensors = {n: t.detach().clone() for n, t in reading.tensors.items() if n not in names}
        self.sizes = {n: v for n, v in reading.numbers.items() if self.spec.sizes.parts(n) is None}
        shapes = {n: _lengths(self.spec, self.spec.inputs[n], reading.sizes) for n in names}
        batch, away = reading.samples, reading.batch.get(self.spec.output)

        def enter(name: str, x: Tensor) -> Tensor:
            at = reading.batch.get(name)
            return (x.movedim(at, 0) if at else x).reshape(*([] if at is None else [batch]), *shapes[name])

        others = [t for t in self.options.values() if isinstance(t, Tensor)]
        self.enter = lambda x: [enter(n, t.to(x.dtype)) for n, t in zip(names, (x, *others), strict=True)]
        self.leave = lambda y, x: y.movedim(0, away) if away else y
        self.sizes["B"] = batch

    def graph(self, objective: str) -> Function:
        """Return the planned equation as a function of the module's input."""
        dtype = str(self.x.dtype).removeprefix("torch.")
        made = pa.plan(self.spec, self.sizes, objective, dtype=dtype)
        run = pa.training_function(made) if objective == "training" else pa.lower(made)
        tensors = [self.tensors[n].to(self.x.dtype).requires_grad_() for n in self.spec.parameters]

        def call(x: Tensor) -> Tensor:
            return self.leave(run(*self.enter(x), *tensors), x)

        return call

    def published(self, x: Tensor) -> Tensor:
        """Return the module's output."""
        others = {n: t.to(x.dtype) if isinstance(t, Tensor) else t for n, t in self.options.items()}
        y = self.module(x, **others)
        return y[0] if isinstance(y, tuple) else y


def _lengths(spec: pa.Spec, shape: tuple[str, ...], sizes: Any) -> list[int]:
    known = spec.sizes.solve({n: v for n, v in sizes.items() if spec.sizes.parts(n) is None}, spec.sizes.names)
    return [int(s) if s.isdigit() else known[s] for s in shape]


def values(name: str, kind: type[nn.Module]) -> dict[str, Any]:
    """Return how far the equation is from the module, in values and the gradient of the input."""
    try:
        found = Layer(name, kind)
        graph = found.graph("as_written")
    except Exception as error:  # each layer of timm fails in its own way
        return {"status": "not said", "reason": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
    x = found.x.clone().requires_grad_()
    theirs = found.published(x)
    ours = graph(x).reshape(theirs.shape)
    seed = torch.randn_like(theirs)
    both = [torch.autograd.grad(y, x, seed)[0] for y in (ours, theirs)]
    errors = [_far(ours, theirs), _far(*both)]
    row = {"way": found.way, "equation": str(found.spec), "values": errors[0], "gradients": errors[1]}
    return {"status": "equal" if max(errors) < SINGLE.get(name, WORST) else "different", **row}


def _far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def times(name: str, kind: type[nn.Module], seconds: float) -> dict[str, Any]:
    """Return the medians of both sides in float32, and how many times faster the plan is."""
    found = Layer(name, kind)
    found.module, found.x = found.module.float(), found.x.float()
    row: dict[str, Any] = {"shape": list(found.x.shape)}
    for objective in ("forward", "training"):
        graph = found.graph(objective)
        x = found.x.clone().requires_grad_(objective == "training")

        def run(call: Function, x: Tensor = x) -> Callable[[], None]:
            def once() -> None:
                if x.requires_grad:
                    call(x).sum().backward()
                else:
                    with torch.no_grad():
                        call(x)

            return once

        taken = interleaved({"planned": run(graph), "timm": run(found.published)}, seconds=seconds)
        row[objective] = {side: statistics.median(t) for side, t in taken.items()}
        row[objective]["ratio"] = row[objective]["timm"] / row[objective]["planned"]
    return row


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts and the geometric means."""
    counts = {s: sum(r["status"] == s for r in runs) for s in ("equal", "different", "not said")}
    timed = [r["times"] for r in runs if "times" in r]
    means = {o: geometric_mean(t[o]["ratio"] for t in timed) for o in ("forward", "training") if timed}
    slower = [r["case"] for r in runs if "times" in r and min(r["times"][o]["ratio"] for o in means) < 0.95]
    return {"classes": len(runs), **counts, "timed": len(timed), "timm / planned": means, "slower": slower}


def _stop(*_: object) -> None:
    raise TimeoutError(f"planning and timing took longer than {LONGEST} s")


def main() -> None:
    signal.signal(signal.SIGALRM, _stop)
    args = arguments(__doc__, ("values", "times"), resumable=True)
    warnings.simplefilter("ignore")
    kinds = all_layers()
    held = json.loads(args.out.read_text())["runs"] if args.out and args.out.exists() else []
    runs: dict[str, dict[str, Any]] = {r["case"]: r for r in held if r["case"] in kinds}
    for name, kind in kinds.items():
        if args.only and name not in args.only.split(","):
            continue
        if args.part == "values" and (name not in runs or args.only):
            runs[name] = {"case": name, "module": kind.__module__, **values(name, kind)}
            print(name, runs[name]["status"], runs[name].get("reason") or runs[name]["values"], flush=True)
        elif args.part == "times" and runs[name]["status"] == "equal" and ("times" not in runs[name] or args.only):
            signal.alarm(LONGEST)
            try:
                runs[name]["times"] = times(name, kind, 0.2 if args.quick else 0.5)
            except (TimeoutError, pa.PolyattnError) as error:
                runs[name]["not timed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
                print(name, runs[name]["not timed"], flush=True)
                continue
            finally:
                signal.alarm(0)
            print(name, *(round(runs[name]["times"][o]["ratio"], 2) for o in ("forward", "training")), flush=True)
        ordered = [runs[n] for n in kinds if n in runs]
        write(args, summary(ordered), ordered)
    rows = [[r["case"], r["status"], r.get("way", r.get("reason", ""))[:70]] for r in runs.values()]
    show("timm's attention-like layers as equations", ["class", "is", "how"], rows)
    print(summary(list(runs.values())))


if __name__ == "__main__":
    main()
