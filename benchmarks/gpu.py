"""Fused kernels and layers on a GPU: correctness first, then every measurement, in one command and one JSON file.

Usage: python benchmarks/gpu.py [--out results.json] [--quick] [--minutes 8.5]

1. Every kernel against its definition in float64, values and gradients, in each dtype and memory layout, at sizes that
   are no multiples of a tile. Nothing is timed if one is wrong.
2. Two ceilings, measured here: bytes per second of a large copy, and multiply-accumulates per second of a large matrix
   product in each dtype.
3. Kernels and layers, bfloat16: median times (the cache flushed between runs), and how near they are to the larger of
   MACs / rate and bytes / bandwidth. Torch's own way to the same values stands beside each.
4. How the time of a layer grows with the number of positions, and the goals that these figures are to meet.

What a run needs: torch with CUDA, triton, numpy, sympy, opt_einsum; for planning lark, igraph and texttable. Where some
are missing and there is no package index, fetch their wheels for that Python and platform elsewhere (`pip download
--no-deps --only-binary=:all: --python-version ... --platform ... -d wheels lark igraph texttable`), carry the folder
along, install it there (`pip install --no-index --no-deps --target site wheels/*.whl`), and put `site` and the root of
this repository on PYTHONPATH. With timm there its BA-Transform is compared too; without it that is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyattn import catalog, kernels, lower, plan
from polyattn.kernels.bilinear import block_cross
from polyattn.kernels.bilinear import cost as bilinear_cost
from polyattn.kernels.bilinear import naive as bilinear_naive
from polyattn.kernels.cost import Cost
from polyattn.kernels.gram import cost as gram_cost
from polyattn.kernels.gram import naive as gram_naive
from polyattn.kernels.hadamard_mean import cost as hadamard_cost
from polyattn.kernels.hadamard_mean import naive as hadamard_naive
from polyattn.kernels.linear_attention import cost as attention_cost
from polyattn.kernels.linear_attention import naive as attention_naive
from polyattn.kernels.project import cost as project_cost
from polyattn.kernels.project import naive as project_naive
from polyattn.lowering import training_function

POINTS = ((3136, 256), (784, 512), (12544, 64), (65536, 64))
BATCH = 32
LARGE = (10_000, 31_616, 100_000, 316_224, 1_000_000)
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
TF32 = 2e-3
CHECKED = ((2, 333, 47, 65), (3, 1000, 128, 96))
"""Batch, positions, channels and columns at which the kernels are checked."""
DEVICE = "cuda"


class Clock:
    """Measurements until the time is over; what comes after is listed as left out."""

    def __init__(self, minutes: float):
        self.end = time.perf_counter() + 60 * minutes
        self.left_out: list[str] = []

    def milliseconds(self, what: str, call: Callable[[], object]) -> float | None:
        if time.perf_counter() > self.end:
            self.left_out.append(f"{what}: no time left")
            return None
        from triton.testing import do_bench

        try:
            found = do_bench(call, warmup=10, rep=60, return_mode="median")
        except torch.OutOfMemoryError:
            self.left_out.append(f"{what}: out of memory")
            torch.cuda.empty_cache()
            return None
        assert isinstance(found, float)
        return found


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=dtype)


Case = tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]


def cases(b: int, n: int, c: int, d: int) -> dict[str, Case]:
    """Each kernel, its definition, and the shapes of its arguments."""
    h, w, g, s, t = max(1, n // 20), 20, 2, 7, 5
    return {
        "gram": (lambda x: kernels.gram(x, 1 / n), lambda x: gram_naive.gram(x, 1 / n), [(b, n, c)]),
        "hadamard_mean": (
            kernels.hadamard_mean,
            lambda x, v, u: hadamard_naive.hadamard_mean(x, v, u, 1 / n),
            [(b, n, c), (c, d), (c, d)],
        ),
        "project": (kernels.project, project_naive.project, [(b, n, c), (c, d), (b, c)]),
        "project_pair": (
            kernels.project_pair,
            project_naive.project_pair,
            [(b, n, c), (b, c, d), (b, n, d), (d, d)],
        ),
        "bilinear": (kernels.bilinear, bilinear_naive.bilinear, [(b, h, w, g * c), (b, g, s, s), (b, g, t, t)]),
        "block_cross": (
            lambda y, x: block_cross(y, x, g, s, t),
            lambda y, x: bilinear_naive.block_cross(y, x, g, s, t),
            [(b, h, w, g * c), (b, h, w, g * c)],
        ),
        "linear_attention": (
            kernels.linear_attention,
            attention_naive.linear_attention,
            [(b, g, n, c), (b, g, n, c), (b, g, n, d)],
        ),
    }


def correctness() -> list[dict[str, Any]]:
    """The relative errors of values and gradients, and whether they are small enough; all arguments are random.

    Nothing is tuned here: every kernel runs with its first tile, since each way to compile one takes a second.
    """
    os.environ["POLYATTN_TUNING"] = "off"
    ways = [(sizes, torch.bfloat16, layout, "highest") for sizes in CHECKED for layout in ("rows", "columns")]
    ways += [(CHECKED[0], torch.float16, "rows", "highest")]
    ways += [(CHECKED[0], torch.float32, "rows", precision) for precision in ("highest", "high")]
    found = [check(name, *way) for way in ways for name in cases(*way[0])]
    torch.set_float32_matmul_precision("highest")
    del os.environ["POLYATTN_TUNING"]
    return found


def check(
    name: str, sizes: tuple[int, int, int, int], dtype: torch.dtype, layout: str, precision: str
) -> dict[str, Any]:
    """One kernel against its definition in float64."""
    torch.set_float32_matmul_precision(precision)
    function, naive, shapes = cases(*sizes)[name]
    inputs = [draw(*shape, dtype=dtype) for shape in shapes]
    if layout == "columns":
        inputs[0] = inputs[0].movedim(-1, 1).contiguous().movedim(1, -1)
    inputs = [t.requires_grad_() for t in inputs]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    y, reference = function(*inputs), naive(*exact)
    seed = torch.randn_like(reference)
    have = [y, *torch.autograd.grad(y, inputs, seed.to(y))]
    want = [reference, *torch.autograd.grad(reference, exact, seed)]
    errors = [float((p.double() - q).norm() / q.norm().clamp_min(1e-3)) for p, q in zip(have, want, strict=True)]
    most = TF32 if precision == "high" else TOLERANCES[dtype]
    right = all(e < most for e in errors)
    return {
        "kernel": name, "sizes": sizes, "dtype": str(dtype), "layout": layout, "precision": precision,
        "errors": errors, "right": right,
    }  # fmt: skip


def ceilings(clock: Clock) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and multiply-accumulates per second of matrix products."""
    large = torch.randn(2**29, device=DEVICE)
    other = torch.empty_like(large)
    copied = clock.milliseconds("copy", lambda: torch.Tensor.copy_(other, large))
    found = {"bytes per second": 2 * large.nbytes / (1e-3 * (copied or float("nan")))}
    side = 8192
    for name, dtype, precision in (
        ("bfloat16", torch.bfloat16, "highest"),
        ("float16", torch.float16, "highest"),
        ("tf32", torch.float32, "high"),
        ("float32", torch.float32, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = draw(side, side, dtype=dtype), draw(side, side, dtype=dtype)
        took = clock.milliseconds(f"matrix product, {name}", lambda a=a, b=b: a @ b)
        found[f"MACs per second, {name}"] = side**3 / (1e-3 * (took or float("nan")))
    torch.set_float32_matmul_precision("highest")
    return found


class Table:
    """Rows of measurements, each with its share of the roofline."""

    def __init__(self, clock: Clock, limits: dict[str, float]):
        self.clock, self.rows = clock, []
        self.rate, self.bandwidth = limits["MACs per second, bfloat16"], limits["bytes per second"]

    def add(
        self, what: str, which: str, point: tuple[int, int], cost: Cost | None, **ways: Callable[[], object]
    ) -> None:
        """Time several ways to one result; the first is ours."""
        row: dict[str, Any] = {"what": what, "pass": which, "N": point[0], "C": point[1], "B": BATCH}
        for name, call in ways.items():
            took = self.clock.milliseconds(f"{what} {which} {point} {name}", call)
            if took is not None:
                row[f"ms {name}"] = took
        names = list(ways)
        mine = row.get(f"ms {names[0]}")
        if cost is not None:
            row |= {"macs": cost.macs, "bytes": cost.bytes}
            row["ms roofline"] = 1e3 * cost.seconds(self.rate, self.bandwidth)
            if mine:
                row["share of the roofline"] = row["ms roofline"] / mine
        for name in names[1:]:
            if mine and f"ms {name}" in row:
                row[f"{name} / ours"] = row[f"ms {name}"] / mine
        self.rows.append(row)
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)


def both(function: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], object]:
    """A forward and a backward pass."""
    wanted = [t.detach().requires_grad_() for t in tensors]
    seed = torch.randn_like(function(*tensors))
    return lambda: torch.autograd.grad(function(*wanted), wanted, seed)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def grid(n: int) -> int:
    return next(h for h in range(int(n**0.5), 0, -1) if n % h == 0)


def kernel_rows(table: Table, n: int, c: int) -> None:
    """Each kernel beside torch's own operations."""
    b, item, point = BATCH, 2, (n, c)
    x, w1, w2, s = draw(b, n, c), draw(c, c) / c**0.5, draw(c, c) / c**0.5, draw(b, c)
    dy, m, square = draw(b, n, c), draw(b, c, c) / c**0.5, draw(b, c, c) / c**0.5
    torch_gram = lambda x: torch.baddbmm(x.new_zeros(()), x.mT, x, beta=0, alpha=1 / n)  # noqa: E731
    table.add("gram", "forward", point, gram_cost.forward(b, n, c, item),
              kernel=lambda: kernels.gram(x, 1 / n), torch=lambda: torch_gram(x))  # fmt: skip
    torch_mean = lambda x, w1, w2: ((x @ w1) * (x @ w2)).mean(1)  # noqa: E731
    table.add("hadamard_mean", "forward", point, hadamard_cost.forward(b, n, c, c, item),
              kernel=lambda: kernels.hadamard_mean(x, w1, w2), torch=lambda: torch_mean(x, w1, w2),
              compiled=compiled(lambda: torch_mean(x, w1, w2)))  # fmt: skip
    cost = hadamard_cost.forward(b, n, c, c, item) + hadamard_cost.backward(b, n, c, c, item)
    table.add("hadamard_mean", "training", point, cost,
              kernel=both(kernels.hadamard_mean, [x, w1, w2]), torch=both(torch_mean, [x, w1, w2]))  # fmt: skip
    table.add("project", "forward", point, project_cost.project(b, n, c, c, item),
              kernel=lambda: kernels.project(x, w1, s), torch=lambda: x @ (s[:, :, None] * w1))  # fmt: skip
    table.add("project_pair", "forward", point, project_cost.project_pair(b, n, c, c, c, item),
              kernel=lambda: kernels.project_pair(dy, m.mT, x, square),
              torch=lambda: torch.baddbmm(dy @ m.mT, x, square))  # fmt: skip
    h = grid(n)
    maps = x.view(b, h, n // h, c)
    p, q = torch.softmax(draw(b, 4, 7, 7), 3), torch.softmax(draw(b, 4, 7, 7), 2)
    arguments = (b, h, n // h, c, 4, 7, 7, item)
    table.add("bilinear", "forward", point, bilinear_cost.forward(*arguments),
              kernel=lambda: kernels.bilinear(maps, p, q), torch=lambda: two_products(maps, p, q))  # fmt: skip
    table.add("bilinear", "training", point, bilinear_cost.forward(*arguments) + bilinear_cost.backward(*arguments),
              kernel=both(kernels.bilinear, [maps, p, q]), torch=both(two_products, [maps, p, q]))  # fmt: skip
    keys = min(64, c)
    q4, k4, v4 = draw(b, 1, n, keys), draw(b, 1, n, keys), draw(b, 1, n, keys)
    table.add("linear_attention", "forward", point, attention_cost.forward(b, n, keys, keys, item),
              kernel=lambda: kernels.linear_attention(q4, k4, v4), torch=lambda: published(q4, k4, v4),
              compiled=compiled(lambda: published(q4, k4, v4)))  # fmt: skip
    cost = attention_cost.forward(b, n, keys, keys, item) + attention_cost.backward(b, n, keys, keys, item)
    table.add("linear_attention", "training", point, cost,
              kernel=both(kernels.linear_attention, [q4, k4, v4]), compiled=both(compiled(published), [q4, k4, v4]),
              torch=both(published, [q4, k4, v4]))  # fmt: skip


def two_products(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The block-bilinear transform by torch's matrix products."""
    rows = torch.einsum("bgik,bgmkulv->bgmiulv", p, bilinear_naive.blocks(x, p, q))
    return bilinear_naive.joined(torch.einsum("bgmiulv,bglj->bgmiujv", rows, q), x.shape)


def published(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient attention as its authors write it: two softmaxes, two products."""
    return torch.softmax(q, 3) @ (torch.softmax(k, 2).mT @ v)


def poly_nl_paper(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    """Poly-NL, Eq. 7, as the paper computes it."""
    return (((x @ w1) * (x @ w2)).mean(1, keepdim=True) * x) @ w3


def layer_rows(table: Table, n: int, c: int) -> None:
    """Whole layers: planned with kernels, planned without, and the paper's form compiled."""
    b, point, size = BATCH, (n, c), 2 * BATCH * n * c
    spec = catalog.poly_nl()
    x, *w = draw(b, n, c), draw(c, c) / c**0.5, draw(c, c) / c**0.5, draw(c, c) / c**0.5
    made = plan(spec, {"B": b, "N": n, "C": c}, device="cuda")
    trained = plan(spec, {"B": b, "N": n, "C": c}, "training", device="cuda")
    fused, plain = lower(made, device="cuda"), lower(made, kernels="off")
    # The mean over positions comes before the product with them, so the input is read twice and the output written.
    table.add("Poly-NL", "forward", point, Cost(made.macs, 3 * size),
              fused=lambda: fused(x, *w), planned=lambda: plain(x, *w), compiled=compiled(lambda: poly_nl_paper(x, *w)),
              paper=lambda: poly_nl_paper(x, *w))  # fmt: skip
    ours = training_function(trained, device="cuda")
    table.add("Poly-NL", "training", point, Cost(trained.training_macs, 8 * size),
              fused=both(ours, [x, *w]), planned=both(training_function(trained, kernels="off"), [x, *w]),
              compiled=both(compiled(poly_nl_paper), [x, *w]), paper=both(poly_nl_paper, [x, *w]))  # fmt: skip
    bat_rows(table, n, c)
    enl_rows(table, n, c)
    if n >= 12544:
        query = (x @ w[0])[:, None]
        flash = lambda: torch.nn.functional.scaled_dot_product_attention(query, x[:, None], x[:, None])  # noqa: E731
        table.add("Poly-NL against attention", "forward", point, None, fused=lambda: fused(x, *w), attention=flash)


def bat_rows(table: Table, n: int, c: int) -> None:
    """BA-Transform: timm's transform, and the same with its block matrices not expanded."""
    try:
        from timm.layers.non_local_attn import BilinearAttnTransform
    except ImportError:
        table.clock.left_out.append("BA-Transform: timm is not installed")
        return
    side = grid(n)
    if side % 7 or (n // side) % 7:
        side = 7 * max(1, round(n**0.5 / 7))
    x = draw(BATCH, c, side, side)
    block = BilinearAttnTransform(c, 7, 4).to(DEVICE).bfloat16().eval()

    def unexpanded(x: Tensor) -> Tensor:
        out = block.conv1(x)
        pool = torch.nn.functional.adaptive_max_pool2d
        p = block.conv_p(pool(out, (7, 1))).view(-1, 4, 7, 7).sigmoid()
        q = block.conv_q(pool(out, (1, 7))).view(-1, 4, 7, 7).sigmoid()
        p, q = p / p.sum(3, keepdim=True), q / q.sum(2, keepdim=True)
        # timm counts the places inside a block slowest, as P ⊗ I does
        y = kernels.bilinear(x.movedim(1, -1), p, q).movedim(-1, 1)
        return block.conv2(y)

    with torch.no_grad():
        error = float((unexpanded(x) - block(x)).norm() / block(x).norm())
        table.add("BA-Transform", "forward", (side * side, c), None,
                  fused=lambda: unexpanded(x), timm=lambda: block(x))  # fmt: skip
    table.rows[-1]["difference"] = error
    table.add("BA-Transform", "training", (side * side, c), None, fused=both(unexpanded, [x]), timm=both(block, [x]))


def enl_rows(table: Table, n: int, c: int) -> None:
    """E-NL with softmax and its four projections, fused and as published."""
    keys = min(64, c)
    x, wq, wk, wv, wo = (draw(BATCH, n, c), *(draw(c, keys) / c**0.5 for _ in range(3)), draw(keys, c) / keys**0.5)

    def layer(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
            return attention(*((x @ w)[:, None] for w in (wq, wk, wv)))[:, 0] @ wo

        return run

    size, small = 2 * BATCH * n * c, 2 * BATCH * n * keys
    macs = BATCH * n * (4 * c * keys + 2 * keys * keys)
    arguments = [x, wq, wk, wv, wo]
    fused, theirs = layer(kernels.linear_attention), layer(published)
    cost = Cost(macs, 4 * size + 2 * size + 8 * small)
    table.add("E-NL", "forward", (n, c), cost, fused=lambda: fused(*arguments),
              compiled=compiled(lambda: theirs(*arguments)), paper=lambda: theirs(*arguments))  # fmt: skip
    table.add(
        "E-NL", "training", (n, c), None, fused=both(fused, arguments), compiled=both(compiled(theirs), arguments)
    )


def growth(clock: Clock) -> dict[str, Any]:
    """The exponent of Poly-NL's forward time in the number of positions, one sample of 64 channels, least squares."""
    times = {}
    for n in LARGE:
        made = lower(plan(catalog.poly_nl(), {"B": 8, "N": n, "C": 64}, device="cuda"), device="cuda")
        x, *w = draw(8, n, 64), draw(64, 64), draw(64, 64), draw(64, 64)
        took = clock.milliseconds(f"growth at N = {n}", lambda made=made, x=x, w=w: made(x, *w))
        if took is not None:
            times[n] = took
    xs, ys = [log(n) for n in times], [log(t) for t in times.values()]
    exponent = statistics.linear_regression(xs, ys).slope if len(xs) > 1 else None
    return {"milliseconds by N": times, "exponent": exponent}


def goals(rows: list[dict[str, Any]], exponent: float | None) -> list[dict[str, Any]]:
    """What the figures are to meet, with the least that was measured."""

    def least(what: str, which: str, key: str, n: int = 0) -> float | None:
        found = [r[key] for r in rows if r["what"] == what and r["pass"] == which and key in r and r["N"] >= n]
        return min(found) if found else None

    wanted = [
        ("Poly-NL forward, share of the roofline", least("Poly-NL", "forward", "share of the roofline"), 0.6),
        ("Poly-NL training, share of the roofline", least("Poly-NL", "training", "share of the roofline"), 0.6),
        ("Poly-NL forward against the paper's form compiled", least("Poly-NL", "forward", "compiled / ours"), 1.5),
        ("Poly-NL training against the paper's form compiled", least("Poly-NL", "training", "compiled / ours"), 1.8),
        ("BA-Transform against timm's", least("BA-Transform", "forward", "timm / ours"), 3.0),
        ("E-NL against its published form compiled", least("E-NL", "forward", "compiled / ours"), 1.5),
        (
            "Poly-NL against attention at N = 65536",
            least("Poly-NL against attention", "forward", "attention / ours", 65536),
            50.0,
        ),
    ]
    found = [{"goal": g, "least": v, "wanted": w, "met": v is not None and v >= w} for g, v, w in wanted]
    met = exponent is not None and 0.95 <= exponent <= 1.05
    return [*found, {"goal": "exponent in N", "least": exponent, "wanted": "0.95 to 1.05", "met": met}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--quick", action="store_true", help="one size")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this benchmark measures a GPU, and torch finds none", file=sys.stderr)
        return 2
    import triton

    clock = Clock(args.minutes)
    record: dict[str, Any] = {
        "benchmark": "gpu", "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
        "triton": triton.__version__, "python": platform.python_version(), "date": date.today().isoformat(),
    }  # fmt: skip
    torch.manual_seed(0)
    record["correctness"] = correctness()
    wrong = [c for c in record["correctness"] if not c["right"]]
    print(f"correctness: {len(record['correctness'])} checks, {len(wrong)} wrong", flush=True)
    for case in wrong[:20]:
        print(case)
    if not wrong:
        record["ceilings"] = ceilings(clock)
        print(record["ceilings"], flush=True)
        table = Table(clock, record["ceilings"])
        for n, c in POINTS[:1] if args.quick else POINTS:
            layer_rows(table, n, c)
        record["growth"] = growth(clock)
        for n, c in POINTS[:1] if args.quick else POINTS:
            kernel_rows(table, n, c)
        record |= {"rows": table.rows, "left out": clock.left_out}
        record["goals"] = goals(table.rows, record["growth"]["exponent"])
        for goal in record["goals"]:
            print(goal)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
