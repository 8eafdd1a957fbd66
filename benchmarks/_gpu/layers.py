"""Whole layers: planned with kernels, planned without, the paper's form, and what others offer; growth; goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor

from _gpu.bench import Bench, Function, Table, both
from _gpu.kernels import published
from polyattn import Plan, Spec, catalog, kernels, lower, nn, plan
from polyattn.kernels.cost import Cost
from polyattn.lowering import differentiable


def poly_nl_paper(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    """Poly-NL, Eq. 7, as the paper computes it."""
    return (((x @ w1) * (x @ w2)).mean(1, keepdim=True) * x) @ w3


def poly_nl_rows(table: Table, n: int, c: int) -> None:
    bench, b, point = table.bench, table.bench.sizes.batch, (n, c)
    device, (forward, training) = bench.model, least_traffic(bench, n, c)
    spec = catalog.poly_nl()
    x, *w = bench.draw(b, n, c), *(bench.draw(c, c) / c**0.5 for _ in range(3))
    made, trained = (planned(bench, spec, n, c, which, bench.kernels) for which in ("forward", "training"))
    alone, trained_alone = (planned(bench, spec, n, c, which, "off") for which in ("forward", "training"))
    fused = lower(made, kernels=bench.kernels, device=device)
    plain, late = lower(alone, kernels="off"), lower(alone, kernels=bench.kernels, device=device)
    # Planned without the kernels, which are put in afterwards, where that is another order of contraction.
    after: dict[str, Callable[[], object]] = {} if alone.graph == made.graph else {"late": lambda: late(x, *w)}
    compiled = bench.compiled(poly_nl_paper)
    table.add("Poly-NL", "forward", point, Cost(made.macs, forward),
              fused=lambda: fused(x, *w), planned=lambda: plain(x, *w), compiled=lambda: compiled(x, *w),
              paper=lambda: poly_nl_paper(x, *w), **after)  # fmt: skip
    ours = differentiable(trained, kernels=bench.kernels, device=device)
    if trained_alone.graph != trained.graph:
        after = {"late": both(differentiable(trained_alone, kernels=bench.kernels, device=device), [x, *w])}
    else:
        after = {}
    table.add("Poly-NL", "training", point, Cost(trained.training_macs, training),
              fused=both(ours, [x, *w]), planned=both(differentiable(trained_alone, kernels="off"), [x, *w]),
              compiled=both(compiled, [x, *w]), paper=both(poly_nl_paper, [x, *w]), **after)  # fmt: skip
    if n >= 12544 or not bench.timed:
        query, keys = (x @ w[0])[:, None], x[:, None]

        def attention() -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(query, keys, keys)

        table.add("Poly-NL against attention", "forward", point, None,
                  fused=lambda: fused(x, *w), attention=attention)  # fmt: skip


def planned(
    bench: Bench, spec: Spec, n: int, c: int, objective: str, kernels: str | tuple[str, ...], **more: int
) -> Plan:
    sizes = {"B": bench.sizes.batch, "N": n, "C": c, **more}
    return plan(spec, sizes, objective, device=bench.model, kernels=kernels)


def least_traffic(bench: Bench, n: int, c: int) -> tuple[int, int]:
    """Bytes that a layer moves at the least whose result at a position depends on all positions: its input is read
    twice, its output written; with the backward pass, both and the output's gradient twice more (8 maps in all)."""
    size = 2 * bench.sizes.batch * n * c
    return 3 * size, 8 * size


def bat_rows(table: Table, n: int, c: int) -> None:
    """BA-Transform with timm's weights against timm's, at the nearest map of whole 7 x 7 blocks.

    `fused` is `nn.BATransform`; `kernel` is timm's block with its two products by blocks made by the kernel, which
    leaves aside what planning and layouts add.
    """
    try:
        from timm.layers.non_local_attn import BilinearAttnTransform
    except ImportError:
        table.bench.left_out.append("BA-Transform: timm is not installed")
        return
    bench = table.bench
    side = 7 * max(1, round(n**0.5 / 7))
    point, traffic = (side * side, c), least_traffic(bench, side * side, c)
    # The two convolutions, and each block mixed with the 7 of its row and the 7 of its column.
    macs = bench.sizes.batch * side * side * c * (2 * c + 7 + 7)
    x = bench.draw(bench.sizes.batch, c, side, side)
    theirs = BilinearAttnTransform(c, 7, 4)
    ours = nn.load_weights(nn.BATransform(c, block_size=7, groups=4, bias=False), theirs.state_dict(), "timm")
    theirs, ours = (block.to(bench.device).bfloat16().eval() for block in (theirs, ours))

    def unexpanded(x: Tensor) -> Tensor:
        out = theirs.conv1(x)
        pool = torch.nn.functional.adaptive_max_pool2d
        p = theirs.conv_p(pool(out, (7, 1))).view(-1, 4, 7, 7).sigmoid()
        q = theirs.conv_q(pool(out, (1, 7))).view(-1, 4, 7, 7).sigmoid()
        p, q = p / p.sum(3, keepdim=True), q / q.sum(2, keepdim=True)
        return theirs.conv2(kernels.bilinear(x.movedim(1, -1), p, q).movedim(-1, 1))

    with torch.no_grad():
        reference = theirs(x)
        differences = {
            name: float((block(x) - reference).norm() / reference.norm())
            for name, block in (("fused", ours), ("kernel", unexpanded))
        }
        table.add("BA-Transform", "forward", point, Cost(macs, traffic[0]),
                  fused=lambda: ours(x), kernel=lambda: unexpanded(x), timm=lambda: theirs(x))  # fmt: skip
    table.rows[-1]["differences"] = differences
    if max(differences.values()) > 5e-2:
        raise AssertionError(f"BA-Transform is not timm's: {differences}")
    table.add("BA-Transform", "training", point, Cost(3 * macs, traffic[1]),
              fused=both(ours, [x]), kernel=both(unexpanded, [x]), timm=both(theirs, [x]))  # fmt: skip


def enl_rows(table: Table, n: int, c: int) -> None:
    """E-NL with softmax: planned with kernels, with the two halves of attention as kernels alone, and as published."""
    bench, b = table.bench, table.bench.sizes.batch
    keys = min(64, c)
    spec, sizes = catalog.e_nl(softmax=True), {"R": keys, "V": keys}
    made, trained = (planned(bench, spec, n, c, which, bench.kernels, **sizes) for which in ("forward", "training"))
    x = bench.draw(b, n, c)
    wq, wk, wv, wo = (*(bench.draw(c, keys) / c**0.5 for _ in range(3)), bench.draw(keys, c) / keys**0.5)
    given = {"x": x, "wq": wq, "wk": wk, "wv": wv, "wo": wo}
    ordered = [given[name] for name in (*spec.inputs, *spec.parameters)]
    fused = lower(made, kernels=bench.kernels, device=bench.model)
    ours = differentiable(trained, kernels=bench.kernels, device=bench.model)

    def layer(attention: Function) -> Function:
        def run(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor) -> Tensor:
            return attention(*((x @ w)[:, None] for w in (wq, wk, wv)))[:, 0] @ wo

        return run

    arguments, (forward, training) = list(given.values()), least_traffic(bench, n, c)
    halves, theirs = layer(kernels.linear_attention), layer(published)
    compiled = bench.compiled(theirs)
    reference = theirs(*arguments).double()
    difference = float((fused(*ordered).double() - reference).norm() / reference.norm())
    if difference > 5e-2:
        raise AssertionError(f"E-NL is not the published layer: {difference}")
    table.add("E-NL", "forward", (n, c), Cost(made.macs, forward), fused=lambda: fused(*ordered),
              halves=lambda: halves(*arguments), compiled=lambda: compiled(*arguments),
              paper=lambda: theirs(*arguments))  # fmt: skip
    table.rows[-1]["difference"] = difference
    table.add("E-NL", "training", (n, c), Cost(trained.training_macs, training), fused=both(ours, ordered),
              halves=both(halves, arguments), compiled=both(compiled, arguments),
              paper=both(theirs, arguments))  # fmt: skip


def growth(bench: Bench) -> dict[str, Any]:
    """The exponent of Poly-NL's forward time in the positions, at 64 channels, by least squares."""
    times, b = {}, bench.sizes.batch
    for n in bench.sizes.lengths:
        if bench.over:
            bench.left_out.append(f"growth at N = {n}: no time left")
            continue
        found = planned(bench, catalog.poly_nl(), n, 64, "forward", bench.kernels)
        made = lower(found, kernels=bench.kernels, device=bench.model)
        x, *w = bench.draw(b, n, 64), *(bench.draw(64, 64) / 8 for _ in range(3))
        took = bench.milliseconds(f"growth at N = {n}", lambda made=made, x=x, w=w: made(x, *w))
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
        (f"{layer} {which}, share of the roofline", least(layer, which, "share of the roofline"), 0.6)
        for layer in ("Poly-NL", "E-NL", "BA-Transform")
        for which in ("forward", "training")
    ]
    wanted += [
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
