"""Products along parts of an axis: a small matrix filled up with zeros (P as P ⊗ I) against ways that copy the map.

`--part product`: the map lies in memory as (batch, rows, s, v), channels first, and is to be contracted over s:
y[b,r,j,v] = Σ_s x[b,r,s,v] q[b,s,j]. `filled` multiplies by the s·v × s·v matrix; `turned` copies the map so that v
comes before s, `batched` leaves that to torch; `rows last` brings s to the front. The last three leave their result in
another order, which what follows may have to turn back.

`--part layer`: `BATransform` of 4 groups with s × s blocks of v × v positions, planned with identities of at most 4,
8 and 16 values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, interleaved, medians, show, write
from torch import Tensor

import polyattn as pa
from polyattn.lowering import products
from polyattn.lowering.graphs import _lower, _lower_backward
from polyattn.runtime import plan_cache

SIZES = [(s, v) for s in (4, 7, 14) for v in (2, 4, 8, 12, 16)]
ENTRIES = 1_600_000
LAYERS = [(7, 4), (7, 6), (7, 8), (7, 12), (14, 4), (14, 8), (4, 8), (4, 16)]
LIMITS = (4, 8, 16)


def ways(x: Tensor, q: Tensor) -> dict[str, Any]:
    _, rows, _, v = x.shape
    eye = torch.eye(v)

    def filled() -> Tensor:
        both = (q[:, :, None, :, None] * eye[None, None, :, None, :]).flatten(3).flatten(1, 2)
        return torch.bmm(x.flatten(2), both).view_as(x)

    def turned() -> Tensor:
        return torch.bmm(x.mT.contiguous().flatten(1, 2), q).unflatten(1, (rows, v)).mT

    def batched() -> Tensor:
        return torch.matmul(x.permute(0, 3, 1, 2), q.unsqueeze(1)).permute(0, 2, 3, 1)

    def rows_last() -> Tensor:
        front = x.transpose(1, 2).contiguous().flatten(2)
        return torch.bmm(q.mT, front).unflatten(2, (rows, v)).transpose(1, 2)

    return {"filled": filled, "turned": turned, "batched": batched, "rows last": rows_last}


def forward(block: torch.nn.Module, x: Tensor) -> Callable[[], object]:
    block = block.eval()

    def call() -> object:
        with torch.no_grad():
            return block(x)

    return call


def both(block: torch.nn.Module, x: Tensor) -> Callable[[], object]:
    block, leaf, seed = block.train(), x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(block(leaf), [leaf, *block.parameters()], seed)


def with_limit(limit: int, block: torch.nn.Module, make: Callable[..., Callable[[], object]], x: Tensor) -> Any:
    """A pass of a copy of the block whose functions were made with this limit."""
    products.LARGEST_IDENTITY = limit
    for made in (plan_cache._planned, _lower, _lower_backward):
        made.cache_clear()
    call = make(copy.deepcopy(block), x)
    call()
    return call


def layers(args: Any) -> None:
    runs, rows = [], []
    for s, v in LAYERS[:: 4 if args.quick else 1]:
        channels = max(16, 16 * round(ENTRIES / (4 * (s * v) ** 2 * 16)))
        x, block = torch.randn(4, channels, s * v, s * v), pa.nn.BATransform(channels, block_size=s, bias=False)
        for name, make in (("evaluation", forward), ("training", both)):
            calls = {str(limit): with_limit(limit, block, make, x) for limit in LIMITS}
            times = interleaved(calls, seconds=0.2 if args.quick else 15.0)
            found = medians(times)
            runs.append({"s": s, "v": v, "shape": list(x.shape), "pass": name, "seconds": times})
            rows.append([f"s={s} v={v}, {name}", *(found[str(k)] / found["8"] for k in LIMITS)])
    show("times over those with at most 8", ("layer", *(f"at most {k}" for k in LIMITS)), rows)
    write(args, {r[0]: dict(zip(map(str, LIMITS), r[1:], strict=True)) for r in rows}, runs)


def single(args: Any) -> None:
    runs, rows = [], []
    for s, v in SIZES[:: 4 if args.quick else 1]:
        count = max(1, ENTRIES // (32 * s * v))
        x, q = torch.randn(32, count, s, v), torch.randn(32, s, s)
        calls = ways(x, q)
        for call in calls.values():
            torch.testing.assert_close(call(), calls["turned"](), rtol=1e-3, atol=1e-3)
        times = interleaved(calls, seconds=0.2 if args.quick else 4.0)
        found = medians(times)
        best = min((k for k in found if k != "filled"), key=lambda k: found[k])
        runs.append({"s": s, "v": v, "rows": count, "best without zeros": best, "seconds": times})
        rows.append([s, v, 1e3 * found["filled"], best, found["filled"] / found[best]])
    show("one product over s", ("s", "v", "filled, ms", "best without zeros", "filled / it"), rows)
    write(args, {f"s={r[0]} v={r[1]}": r[4] for r in rows}, runs)


def main() -> None:
    args = arguments(__doc__, ("product", "layer"))
    single(args) if args.part == "product" else layers(args)


if __name__ == "__main__":
    main()
