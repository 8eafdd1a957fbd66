"""Errors of the planned form beside those of the author's order, on maps with a mean that the weights remove.

Each entry of the catalogue runs as a lowered graph, each block as a module, at means 0 to 30 of a map of deviation 1,
in float32, bfloat16 and float16 (blocks in 16 bits under autocast). Columns of weights sum to 0 over the input
channels, so that a constant mean is projected away; they come in pairs w, -w of 8 bits, which every dtype holds. An
error is the norm of the difference from the author's order in float64, over the norm of that; of a backward pass, the
largest among the gradients of the map and of the parameters. Errors below 8 eps in float32 and 1 eps in 16 bits count
as that, and points where the author's order is off by more than a half are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from _common import arguments, geometric_mean, resumed, show, sizes_of, tensors_of
from torch import Tensor, nn

from polyattn import Spec, catalog, lower, plan
from polyattn import nn as blocks
from polyattn.lowering import training_function
from polyattn.runtime.function import SpecFunction

SIDE, CHANNELS, BATCH = 32, 32, 2
MEANS = (0, 1, 3, 10, 30)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LEAST = {"float32": 8.0, "bfloat16": 1.0, "float16": 1.0}
"""Errors below so many eps count as that many."""
WORST, LEFT_OUT = 4.0, 0.5
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "A2": lambda: blocks.A2(CHANNELS, normalisation="scaling"),
    "A2 softmax": lambda: blocks.A2(CHANNELS),
    "Axial": lambda: blocks.Axial(CHANNELS, normalisation="scaling"),
    "BATBlock": lambda: blocks.BATBlock(CHANNELS, block_size=4, groups=4, reduction=2),
    "CGNL": lambda: blocks.CGNL(CHANNELS),
    "CrissCross": lambda: blocks.CrissCross(CHANNELS, normalisation="scaling", recurrence=1),
    "EfficientNL": lambda: blocks.EfficientNL(CHANNELS, normalisation="scaling"),
    "EfficientNL softmax": lambda: blocks.EfficientNL(CHANNELS, heads=2),
    "GloRe": lambda: blocks.GloRe(CHANNELS),
    "LatentGNN": lambda: blocks.LatentGNN(CHANNELS, latent_dims=[16]),
    "NonLocal": lambda: blocks.NonLocal(CHANNELS, similarity="dot_product"),
    "NonLocal softmax": lambda: blocks.NonLocal(CHANNELS),
    "PolyNL": lambda: blocks.PolyNL(CHANNELS),
    "TESA": lambda: blocks.TESA(CHANNELS),
}
Results = list[Tensor]


def paired(weight: Tensor, axis: int) -> Tensor:
    """The weight with its entries along an axis in pairs w, -w, a last odd one 0; in 8 bits."""
    weight = weight.detach().bfloat16().to(weight.dtype).movedim(axis, 0).clone()
    weight[1::2] = -weight[: 2 * (len(weight) // 2) : 2]
    if len(weight) % 2:
        weight[-1] = 0
    return weight.movedim(0, axis)


def centred(spec: Spec, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The parameters, each paired along the first of its slots over the input's channels that it has."""
    width = {name: len(shape[-1]) for name, shape in ((x, spec.shape(x)) for x in spec.inputs)}
    axes: dict[str, int] = {}
    for term in spec.polynomial().terms:
        factors = [f for f in term.factors if hasattr(f, "tensor")]
        inner = {i for f in factors if f.tensor in width for i in f.indices[-width[f.tensor] :]}
        for factor in factors:
            if factor.tensor in spec.parameters:
                place = 0
                for slot, atoms in enumerate(spec.shape(factor.tensor)):
                    if inner & set(factor.indices[place : place + len(atoms)]):
                        axes.setdefault(factor.tensor, slot)
                        break
                    place += len(atoms)
    return [
        paired(p, axes[name]) if name in axes else p.bfloat16().to(p.dtype)
        for name, p in zip(spec.parameters, parameters, strict=True)
    ]


def mapped(shape: Sequence[int], mean: float, dtype: torch.dtype) -> Tensor:
    return (mean + torch.randn(shape, generator=torch.Generator().manual_seed(1))).to(dtype)


def results(call: Callable[[], Tensor], wanted: Sequence[Tensor]) -> Results:
    """The output, and the gradients of what is wanted for a fixed gradient of it, in float64."""
    y = call()
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(y.dtype)
    gradients = torch.autograd.grad(y, wanted, seed, allow_unused=True)
    return [y.detach().double(), *(torch.zeros(()) if g is None else g.double() for g in gradients)]


def entry(name: str, mean: float, dtype: torch.dtype) -> tuple[Results, Results, Results, float]:
    """The truth, the author's and the planned results, and the share of multiply-accumulates that the plan takes."""
    spec = catalog.get(name)
    sizes = sizes_of(spec, SIDE, SIDE, CHANNELS)
    (x, *parameters) = tensors_of(spec, sizes, BATCH)
    given = [mapped(x.shape, mean, dtype), *(p.to(dtype) for p in centred(spec, parameters))]
    written = plan(spec, sizes, "as_written", batch=BATCH)
    made = plan(spec, sizes, "training", batch=BATCH, accuracy="written")

    def run(function: Callable[..., Tensor], wide: bool) -> Results:
        tensors = [(t.double() if wide else t).clone().requires_grad_() for t in given]
        return results(lambda: function(*tensors), tensors)

    author = lower(written)
    return (
        run(author, True),
        run(author, False),
        run(training_function(made, dtype=dtype), False),
        made.macs / written.macs,
    )


def block(name: str, mean: float, dtype: torch.dtype) -> tuple[Results, Results, Results, float | None]:
    """The same of a block, which says no multiply-accumulates."""
    torch.manual_seed(0)
    ours, theirs, truth = (BLOCKS[name]() for _ in range(3))
    state = {}
    for key, value in ours.state_dict().items():
        if value.is_floating_point() and not key.endswith(("running_mean", "running_var")):
            convolution = value.dim() > 2 and value.shape[1] > 1
            value = paired(value, 1) if convolution else value.bfloat16().to(value.dtype)
            value = value if value.any() or key.endswith("bias") else torch.full_like(value, 0.5)
        state[key] = value
    spec = getattr(ours, "spec", None)
    if isinstance(ours, blocks.Attention):
        assert isinstance(spec, Spec)
        state |= dict(zip(ours._attributes, centred(spec, list(ours.spec_parameters().values())), strict=False))
    for module in (ours, theirs, truth):
        module.load_state_dict({k: v.reshape(ours.state_dict()[k].shape) for k, v in state.items()})
    truth.double()
    for module in (m for whole in (theirs, truth) for m in whole.modules()):
        for value in vars(module).values():
            if isinstance(value, SpecFunction):
                value.objective = "as_written"
    given = mapped((BATCH, CHANNELS, SIDE, SIDE), mean, dtype)

    def run(module: nn.Module) -> Results:
        wide = module is truth
        x = (given.double() if wide else given).clone().requires_grad_()
        narrow = dtype != torch.float32 and not wide
        call = module.attend if isinstance(module, blocks.Attention) else module

        def forward() -> Tensor:
            with torch.autocast("cpu", dtype if narrow else torch.bfloat16, enabled=narrow):
                return call(x)

        wanted = [x, *(p for n, p in module.named_parameters() if p.requires_grad and n not in ("alpha", "beta"))]
        return results(forward, wanted)

    return run(truth), run(theirs), run(ours), None


def distance(found: Results, truth: Results) -> float:
    """The largest relative error; 1e9 where something is not finite."""
    worst = 0.0
    for a, b in zip(found, truth, strict=True):
        norm = b.norm()
        # A gradient that is 0 in exact arithmetic, such as a bias's before a batch norm, has no relative error.
        if norm > 1e-9 * max(1.0, float(truth[0].norm())):
            error = float((a - b).norm() / norm)
            worst = max(worst, error if error < 1e9 else 1e9)
            worst = 1e9 if error != error else worst
    return worst


def measured(kind: str, name: str, mean: float, dtype: str) -> dict[str, Any]:
    make = entry if kind == "entry" else block
    truth, author, ours, share = make(name, mean, DTYPES[dtype])
    found: dict[str, Any] = {"kind": kind, "name": name, "mean": mean, "dtype": dtype, "macs": share}
    for part, cut in (("forward", slice(0, 1)), ("backward", slice(1, None))):
        errors = distance(author[cut], truth[cut]), distance(ours[cut], truth[cut])
        least = LEAST[dtype] * torch.finfo(DTYPES[dtype]).eps
        found[part] = {
            "author": errors[0],
            "planned": errors[1],
            "ratio": max(errors[1], least) / max(errors[0], least) if errors[0] <= LEFT_OUT else None,
        }
    return found


def points(runs: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, float]]:
    for run in runs:
        for part in ("forward", "backward"):
            if run[part]["ratio"] is not None:
                yield run, part, run[part]["ratio"]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found = list(points(runs))
    shares = [r["macs"] for r in runs if r["macs"] is not None and r["dtype"] == "float32" and r["mean"] == 0]
    return {
        "points": len(found),
        "left out": 2 * len(runs) - len(found),
        "above": sum(ratio > WORST for *_, ratio in found),
        "worst": max((ratio for *_, ratio in found), default=0.0),
        "geometric mean": geometric_mean(ratio for *_, ratio in found),
        "share of the author's multiply-accumulates, geometric mean": geometric_mean(shares),
    }


def main() -> None:
    args = arguments(__doc__, resumable=True)
    means = (0, 10) if args.quick else MEANS
    names = [*(("entry", n) for n in catalog.names("third_order")), *(("block", n) for n in BLOCKS)]
    cases = {
        f"{kind} {name} {dtype} mean {mean}": partial(measured, kind, name, mean, dtype)
        for kind, name in names
        for dtype in DTYPES
        for mean in means
    }
    runs = resumed(args, cases, summary)
    worst = sorted(points(runs), key=lambda point: -point[2])[:30]
    rows = [
        (f"{r['name']} {part}", r["dtype"], r["mean"], r[part]["author"], r[part]["planned"], ratio)
        for r, part, ratio in worst
    ]
    show("the worst points", ("", "dtype", "mean", "author's error", "planned", "ratio"), rows)
    print(summary(runs))


if __name__ == "__main__":
    main()
