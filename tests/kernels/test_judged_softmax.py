"""Kernels with exponentials, judged exactly: softmax in blocks with a running maximum; accesses outside of tensors."""

import pytest
import torch

import polyattn as pa
from polyattn import testing

triton = pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("kernels are judged in Triton's interpreter", allow_module_level=True)

import triton.language as tl  # noqa: E402

from polyattn.kernels.linear_attention import triton as kernels  # noqa: E402
from polyattn.kernels.tuning import Tile  # noqa: E402

TILE = Tile(16, 16, 16, 4, 3)
SIZES = {"G": 2, "N": 19, "R": 3, "S": 2}


@triton.jit
def attention(q, k, v, out, N, scale, D: tl.constexpr, BLOCK: tl.constexpr, CAUSAL: tl.constexpr, LESS: tl.constexpr):
    """Attention with a running maximum, in powers of two; with LESS it forgets the last keys."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.program_id(1) * N * D + tl.arange(0, D)
    rows = tl.load(q + i[:, None] * D + d[None, :], mask=(i < N)[:, None], other=0.0)
    top = tl.full((BLOCK,), float("-inf"), tl.float32)
    below = tl.zeros((BLOCK,), tl.float32)
    total = tl.zeros((BLOCK, D), tl.float32)
    for start in range(0, N, BLOCK):
        j = start + tl.arange(0, BLOCK)
        keys = tl.load(k + j[:, None] * D + d[None, :], mask=(j < N)[:, None], other=0.0)
        values = tl.load(v + j[:, None] * D + d[None, :], mask=(j < N)[:, None], other=0.0)
        alike = tl.dot(rows, tl.trans(keys)) * (scale * 1.44269504)
        keep = (j < N - LESS)[None, :]
        if CAUSAL:
            keep = keep & (j[None, :] <= i[:, None])
        alike = tl.where(keep, alike, float("-inf"))
        now = tl.maximum(top, tl.max(alike, 1))
        share = tl.exp2(alike - now[:, None])
        shrink = tl.exp2(top - now)
        below = below * shrink + tl.sum(share, 1)
        total = total * shrink[:, None] + tl.dot(share.to(values.dtype), values)
        top = now
    tl.store(out + i[:, None] * D + d[None, :], (total / below[:, None]).to(out.dtype.element_ty), (i < N)[:, None])


def attending(causal=False, less=0, scale=8**-0.5):
    def candidate(q, k, v):
        out = torch.empty_like(q)
        batch, n, d = q.shape
        attention[(triton.cdiv(n, 16), batch)](q, k, v, out, n, scale, D=d, BLOCK=16, CAUSAL=causal, LESS=less)
        return out

    return candidate


def attention_text(where=""):
    return f"q[N,D]; k[N,D]; v[N,D]; p[a,e] = softmax[e](1/sqrt(D)*q[a,r]*k[e,r]{where}); y[a,r] = p[a,e]*v[e,r]"


@pytest.mark.parametrize(("causal", "dtype"), [(False, "float16"), (True, "float32")])
def test_attention_with_a_running_maximum_is_exact(causal, dtype):
    text = attention_text(" where e <= a" if causal else "")
    testing.assert_computes(attending(causal), text, {"N": 19, "D": 8}, dtypes=[dtype])


@pytest.mark.parametrize("slip", [{"less": 1}, {"causal": True}, {"scale": 7**-0.5}])
def test_slips_of_attention_are_refuted(slip):
    assert not pa.verify(attending(**slip), attention_text(), {"N": 19, "D": 8})


LINEAR = {
    "context": (
        lambda k, v: kernels.context(k, v, "ieee", TILE, 2)[0],
        "k[G,N,R]; v[G,N,S]; p[g,n,r] = softmax[n](k[g,n,r]); y[g,r,s] = p[g,n,r]*v[g,n,s]",
    ),
    "query": (
        lambda q, c: kernels.query(q, c, "ieee", TILE),
        "q[G,N,R]; c[G,R,S]; p[g,n,r] = softmax[r](q[g,n,r]); y[g,n,s] = p[g,n,r]*c[g,r,s]",
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_halves_of_linear_attention_are_exact(name):
    kernel, text = LINEAR[name]
    testing.assert_computes(kernel, text, SIZES)


@triton.jit
def doubled(x, out, N, BLOCK: tl.constexpr, READ: tl.constexpr, WRITTEN: tl.constexpr):
    i = tl.arange(0, BLOCK)
    values = tl.load(x + i, mask=i < N + READ, other=0.0)
    tl.store(out + i, tl.where(i < N, 2.0 * values, 0.0), mask=i < N + WRITTEN)


@pytest.mark.parametrize(("read", "written", "fault"), [(1, 0, "reads element 5"), (0, 1, "writes element 5")])
def test_accesses_outside_of_tensors_are_faults(read, written, fault):
    def candidate(x):
        out = torch.empty(5)
        doubled[(1,)](x[0].clone(), out, 5, BLOCK=8, READ=read, WRITTEN=written)
        return torch.stack([out, 2 * x[1]])

    check = pa.verify(candidate, "x[N]; y[a] = 2*x[a]", {"N": 5})
    assert not check
    assert f"a kernel {fault} of memory of 5 elements" in str(check)
