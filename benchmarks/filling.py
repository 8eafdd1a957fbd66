"""Filling a small matrix up with zeros (Q as Q ⊗ I) against the ways that copy the map instead, one product each.

The map lies in memory as (batch, rows, s, v), channels first, and is to be contracted over s: y[b,r,j,v] =
Σ_s x[b,r,s,v] q[b,s,j]. `filled` multiplies by the s·v × s·v matrix; `turned` copies the map so that v comes before s,
`batched` leaves that to torch; `rows last` brings s to the front. The last three leave their result in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from _common import arguments, interleaved, medians, show, write
from torch import Tensor

SIZES = [(s, v) for s in (4, 7, 14) for v in (2, 4, 8, 12, 16)]
ENTRIES = 1_600_000


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


def main() -> None:
    args = arguments(__doc__)
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


if __name__ == "__main__":
    main()
