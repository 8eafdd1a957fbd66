"""Plans across products: five layers, generated sums against the lower bound, einsums against opt_einsum and cotengra.

Multiply-accumulates are counted by torch's dispatcher while the lowered graph runs on tensors without memory, and not
by the plan: matrix products at their full size, zeros included, and elementwise products of two tensors at their
result's. Rivals' are counted along their paths, with indices of one operand alone summed beforehand at no cost.
Planning is timed on the processor, in the same process, each search once; polyattn's with the lowering, too. A run that
is cut short keeps what it has: `--out` with the same file goes on.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import opt_einsum
import torch
from _common import arguments, geometric_mean, resumed, show
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn import Spec, lower, plan
from polyattn.lowering.einsums import einsum_graph, einsum_plan
from polyattn.planning.large import Network, path_tree

try:
    import cotengra
except ImportError:
    cotengra = None

LAYERS = {
    "two projections": ("x[N,C]; y[a,b] = x[a,d]*w1[d,b] + x[a,d]*w2[d,b]", {"N": 196, "C": 1024}, 205_520_896),
    "Poly-NL and a projection": (
        "x[N,C]; y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b] + x[a,d]*w4[d,b]",
        {"B": 8, "N": 3136, "C": 256},
        3_423_600_640,
    ),
    "sigmoid gate": (
        "x[N,C]; s[d] = sigmoid(x[e,f]*u[f,d]); y[a,b] = s[d]*x[a,d]*w[d,b] + x[a,d]*v[d,b]",
        {"B": 8, "N": 3136, "C": 256},
        1_645_215_744,
    ),
    "definitions": (
        "x[N,C]; where r, s : R; d1[a,r] = x[a,c]*w1[c,r]; d3[a,e] = d1[a,r]*d1[e,r]; d4[a,r] = d3[a,e]*d1[e,r]\n"
        "d6[a,s] = d1[a,r]*w2[r,s] + d4[a,s]; y[a,c] = d6[a,r]*w3[r,c]",
        {"B": 4, "N": 784, "C": 512, "R": 32},
        112_394_240,
    ),
    "three hops": (
        "x[N,C]; where r : R; s[a,e] = x[a,c]*wq[c,r]*wk[d,r]*x[e,d]; t1[a,c] = s[a,e]*x[e,c]; "
        "t2[a,c] = s[a,e]*t1[e,c]; t3[a,c] = s[a,e]*t2[e,c]; y[a,c] = x[a,c] + t1[a,c] + t2[a,c] + t3[a,c]",
        {"N": 3136, "C": 256, "R": 32},
        106_496_000,
    ),
}
"""The equation, the sizes, and the multiply-accumulates of the best form known before, by hand."""

SUMS = 1000
OPERANDS = (4, 6, 8, 10, 12, 16, 20, 30, 45, 60)
EINSUMS = 50
"""Einsums of each number of operands."""
REPEATS = (0.0, 0.15, 0.3, 0.45, 0.6)
"""Share of the operands that are an earlier one again."""
aten = torch.ops.aten


class Counter(TorchDispatchMode):
    """Counts the multiply-accumulates of what runs inside."""

    macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in (aten.mm, aten.bmm, aten.dot, aten.mv):
            self.macs += made.numel() * args[0].shape[-1]
        elif packet in (aten.addmm, aten.baddbmm, aten.addmv):
            self.macs += made.numel() * args[1].shape[-1]
        elif packet is aten.mul and all(isinstance(a, torch.Tensor) for a in args):
            self.macs += made.numel()
        return made


def counted(graph: torch.fx.GraphModule, tensors: Mapping[str, tuple[int, ...]]) -> int:
    with Counter() as counter, torch.no_grad():
        graph(**{name: torch.empty(shape, device="meta") for name, shape in tensors.items()})
    return counter.macs


def planned(text: str, sizes: dict[str, int]) -> dict[str, Any]:
    spec = Spec(text)
    started = time.process_time()
    made = plan(spec, sizes, cost="macs")
    seconds = time.process_time() - started
    shapes = {**spec.inputs, **spec.parameters}
    tensors = {n: tuple(made.sizes[s] for s in shape) for n, shape in shapes.items()}
    tensors |= {n: (made.batch, *tensors[n]) for n in spec.inputs}
    return {
        "sizes": sizes,
        "counted": counted(lower(made), tensors),
        "plan": made.macs,
        "lower_bound": made.lower_bound,
        "seconds": seconds,
    }


def layer(name: str) -> dict[str, Any]:
    text, sizes, possible = LAYERS[name]
    return {"part": "layers", "possible": possible, **planned(text, sizes)}


def sum_text(draw: random.Random) -> str:
    """A sum of one to three products with up to three x each, most of them followed by a weight."""
    terms = []
    for _ in range(draw.randint(1, 3)):
        fresh, known, factors = iter("cdfijklmnop"), ["b"], []
        for k in range(draw.randint(1, 3)):
            position = draw.choice("ega") if k else "a"
            new = draw.random() < (0.4 if k else 0.6)
            channel = next(fresh) if new else draw.choice(known)
            known.append(channel)
            factors.append(f"x[{position},{channel}]")
            if draw.random() < 0.5:
                other = draw.choice(known) if draw.random() < 0.5 else next(fresh)
                known.append(other)
                factors.append(f"{draw.choice('uv')}[{channel},{other}]")
        product = "*".join(factors)
        terms.append(product if "b" in product else f"{product}*w[{draw.choice(known[1:])},b]")
    return "x[N,C]; where c, d, f, i, j, k, l, m, n, o, p : C; y[a,b] = " + " + ".join(terms)


def random_sum(number: int) -> dict[str, Any]:
    draw = random.Random(number)
    text = sum_text(draw)
    sizes = {"N": draw.choice([8, 49, 196, 3136]), "C": draw.choice([4, 16, 64, 256]), "B": draw.choice([1, 8])}
    return {"part": "sums", "text": text, **planned(text, sizes)}


def random_einsum(operands: int, number: int) -> dict[str, Any]:
    """A connected network of tensors with 1.5 shared indices for each and two open ones, some tensors repeated."""
    draw, share = random.Random(1000 * operands + number), REPEATS[number % len(REPEATS)]
    pairs = [(draw.randrange(max(0, k - 6), k), k) for k in range(1, operands)]
    pairs += [tuple(draw.sample(range(operands), 2)) for _ in range(operands // 2)]
    axes: list[list[int]] = [[] for _ in range(operands)]
    for index, (a, b) in enumerate(pairs):
        axes[a].append(index)
        axes[b].append(index)
    output = [len(pairs), len(pairs) + 1]
    for index in output:
        draw.choice(axes).append(index)
    for own in axes:
        draw.shuffle(own)
    lengths = [draw.choice([2, 3, 4, 6]) for _ in range(len(pairs) + 2)]
    first = list(range(operands))
    for k in range(operands):
        same = [n for n in range(k) if first[n] == n and len(axes[n]) == len(axes[k])]
        if same and draw.random() < share:
            first[k] = draw.choice(same)
    # Repeated tensors have the lengths of both places: the smaller of each two, until nothing changes.
    changed = True
    while changed:
        changed = False
        for k, own in enumerate(axes):
            for a, b in zip(own, axes[first[k]], strict=True):
                if lengths[a] != lengths[b]:
                    lengths[a] = lengths[b] = min(lengths[a], lengths[b])
                    changed = True
    shapes = [tuple(lengths[i] for i in own) for own in axes]
    letters = [[opt_einsum.get_symbol(i) for i in own] for own in [*axes, output]]
    equation = ",".join(map("".join, letters[:-1])) + "->" + "".join(letters[-1])
    seconds = {}
    for name, make in (("polyattn", einsum_plan), ("polyattn, lowered", einsum_graph)):
        started = time.process_time()
        graph: Any = make(equation, shapes, first, cost="macs")
        seconds[name] = time.process_time() - started
    macs = {"polyattn": counted(graph, {f"a{k}": shapes[k] for k in dict.fromkeys(first)})}
    masks = [sum(1 << i for i in set(own)) for own in axes]
    network = Network(masks, sum(1 << i for i in output), lengths)
    rivals = {m: partial(opt_path, equation, shapes, m) for m in ("auto-hq", "dp") if m != "dp" or operands <= 20}
    if cotengra is not None:
        inputs, known = [tuple(own) for own in letters[:-1]], dict(zip_all(letters, shapes))
        rivals["cotengra"] = partial(
            cotengra.array_contract_path, inputs, tuple(letters[-1]), known, optimize="auto-hq"
        )
    for name, find in rivals.items():
        started = time.process_time()
        path = find()
        seconds[name] = time.process_time() - started
        macs[name] = network.macs(path_tree(path, operands))
    return {"part": "einsums", "operands": operands, "repeated": share, "macs": macs, "seconds": seconds}


def zip_all(letters: list[list[str]], shapes: list[tuple[int, ...]]) -> list[tuple[str, int]]:
    return [pair for own, shape in zip(letters, shapes, strict=False) for pair in zip(own, shape, strict=True)]


def opt_path(equation: str, shapes: list[tuple[int, ...]], method: str) -> Any:
    return opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=method)[0]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    layers = [r for r in runs if r["part"] == "layers"]
    found["layers"] = {r["case"]: {k: r[k] for k in ("counted", "possible", "lower_bound")} for r in layers}
    sums = [r for r in runs if r["part"] == "sums"]
    if sums:
        gaps = sorted(r["counted"] / max(1, r["lower_bound"]) for r in sums)
        seconds = sorted(r["seconds"] for r in sums)
        found["sums"] = {
            "number": len(sums),
            "proved optimal": sum(r["counted"] <= r["lower_bound"] for r in sums) / len(sums),
            "gap": {str(q): gaps[min(len(gaps) - 1, int(q * len(gaps)))] for q in (0.5, 0.9, 0.95, 0.99, 1.0)},
            "seconds": {str(q): seconds[min(len(seconds) - 1, int(q * len(seconds)))] for q in (0.5, 0.95, 1.0)},
        }
    for operands in OPERANDS:
        own = [r for r in runs if r["part"] == "einsums" and r["operands"] == operands]
        if own:
            ratios = [r["macs"]["polyattn"] / min(v for k, v in r["macs"].items() if k != "polyattn") for r in own]
            found[f"einsums of {operands}"] = {
                "number": len(own),
                "macs of the best rival": geometric_mean(ratios),
                "worst": max(ratios),
                "distinct operands": geometric_mean([x for x, r in zip(ratios, own, strict=True) if not r["repeated"]]),
                "seconds": {k: math.fsum(r["seconds"][k] for r in own) / len(own) for k in own[0]["seconds"]},
            }
    return found


def main() -> None:
    args = arguments(__doc__, resumable=True)
    cases: dict[str, Any] = {name: partial(layer, name) for name in LAYERS}
    numbers = range(5 if args.quick else EINSUMS)
    for k in numbers:
        # All numbers of operands and some sums in each round, so that a run cut short has some of each.
        cases |= {f"einsum {n} {k}": partial(random_einsum, n, k) for n in OPERANDS}
        cases |= {f"sum {s}": partial(random_sum, s) for s in range(k * SUMS // EINSUMS, (k + 1) * SUMS // EINSUMS)}
    runs = resumed(args, cases, summary)
    found = summary(runs)
    rows = [(k, v["counted"], v["possible"], v["lower_bound"]) for k, v in found["layers"].items()]
    show("layers", ("", "MACs", "best form before", "lower bound"), rows)
    show("sums", ("", ""), [(k, str(v)) for k, v in found.get("sums", {}).items()])
    rows = [
        (k, v["number"], v["macs of the best rival"], v["worst"], v["distinct operands"], str(v["seconds"]))
        for k, v in found.items()
        if k.startswith("einsums")
    ]
    show("einsums, MACs over the best rival's", ("", "number", "mean", "worst", "no repeats", "seconds"), rows)


if __name__ == "__main__":
    main()
