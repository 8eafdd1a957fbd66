"""Judge a Triton kernel of one's own: does it compute the equation, at sizes that no tile divides?

The kernel runs in Triton's interpreter on elements of a finite field, where sums are exact: no tolerance, and one
forgotten position is found. It needs Triton (the CPU-only wheels of torch come without it) but no GPU.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton

import torch
import triton
import triton.language as tl

import polyattn as pa

ROWS, WIDTH = 16, 16


@triton.jit
def pooled(x, v, out, N, C, SKIP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Add up, over tiles of positions, the products x[e,c]*v[e,c]; with SKIP it forgets the ragged tile's rows."""
    c = tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, N - SKIP * (N % ROWS), ROWS):
        e = start + tl.arange(0, ROWS)
        inside = (e < N)[:, None] & (c < C)[None, :]
        place = e[:, None] * C + c[None, :]
        total += tl.sum(tl.load(x + place, mask=inside, other=0.0) * tl.load(v + place, mask=inside, other=0.0), 0)
    tl.store(out + c, total, mask=c < C)


def layer(skip: bool):
    """Return the whole layer: the kernel for the sums, torch for the rest."""

    def candidate(x, w1, w2, w3):
        context = torch.empty_like(x[:, 0])
        for b, (left, right) in enumerate(zip(x @ w1, x @ w2, strict=True)):
            pooled[(1,)](left, right, context[b], *left.shape, SKIP=skip, ROWS=ROWS, WIDTH=WIDTH)
        return (context[:, None] / x.shape[1] * x) @ w3

    return candidate


poly_nl = "x[N,C]; y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b]"
for number in (16, 33, 50):
    verdict = pa.verify(layer(skip=False), poly_nl, {"N": number, "C": 5}, seed=1)
    print(verdict)
    assert verdict

print("\nthe same kernel without its last, ragged tile:")
verdict = pa.verify(layer(skip=True), poly_nl, {"N": 33, "C": 5}, seed=1)
print(verdict)
assert not verdict
