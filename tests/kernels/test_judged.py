"""Kernels run on elements of a field: exact, so that no tolerance hides a wrong tile, mask, stride or sum."""

import pytest
import torch

import polyattn as pa
from polyattn import testing

triton = pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("kernels are judged in Triton's interpreter", allow_module_level=True)

import triton.language as tl  # noqa: E402

from polyattn.kernels import runtime  # noqa: E402
from polyattn.kernels.bilinear.op import bilinear  # noqa: E402
from polyattn.kernels.cross_gram.op import cross_gram  # noqa: E402
from polyattn.kernels.gram.op import gram  # noqa: E402
from polyattn.kernels.gram.triton import products  # noqa: E402
from polyattn.kernels.hadamard_mean.op import hadamard_mean  # noqa: E402
from polyattn.kernels.tuning import Tile  # noqa: E402

GRAM = "x[N,C]; y[d,b] = 1/N*x[e,d]*x[e,b]"
TILE = Tile(16, 16, 16, 4, 3)


@pytest.mark.parametrize(("dtype", "splits"), [("float32", None), ("float32", 2), ("bfloat16", 2), ("float16", None)])
def test_gram_is_exact_on_ragged_tiles_and_split_sums(dtype, splits):
    testing.assert_computes(
        lambda x: products(x, x, 1 / 21, "ieee", TILE, splits), GRAM, {"N": 21, "C": 17}, dtypes=[dtype]
    )


def test_gram_is_exact_on_other_strides():
    def candidate(x):
        apart = torch.zeros(x.shape[0], 2 * x.shape[2], x.shape[1] + 3)
        view = apart[:, ::2, 1 : x.shape[1] + 1].mT
        view.copy_(x)
        return products(view, view, 1 / 19, "ieee", TILE, None)

    testing.assert_computes(candidate, GRAM, {"N": 19, "C": 17})


BLOCKS = """p[G,S,S]; q[G,T,T]; x[H,W,C]; where C = G*M; where H = S*U; where W = T*V
y[(i u),(j v),(g m)] = p[g,i,k]*x[(k u),(l v),(g m)]*q[g,l,j]"""
CLAIMS = {
    "gram": (gram, GRAM.replace("1/N*", ""), {"N": 5, "C": 3}),
    "cross_gram": (cross_gram, "x[N,C]; z[N,D]; y[d,b] = x[e,d]*z[e,b]", {"N": 5, "C": 3, "D": 2}),
    "hadamard_mean": (
        hadamard_mean,
        "x[N,C]; where d : D; y[d] = 1/N*x[e,c]*w1[c,d]*x[e,f]*w2[f,d]",
        {"N": 5, "C": 3, "D": 2},
    ),
    "bilinear": (lambda p, q, x: bilinear(x, p, q), BLOCKS, {"G": 2, "M": 2, "S": 2, "U": 2, "T": 3, "V": 1}),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_operators_compute_their_definitions(name):
    kernel, text, sizes = CLAIMS[name]
    testing.assert_computes(kernel, text, sizes)


@triton.jit
def scaled_rows(x, z, out, N, C, scale, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LESS: tl.constexpr):
    """Write scale * relu(x) * z / (z * z + 1), forgetting the last LESS columns."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.arange(0, COLUMNS)
    place = n[:, None] * C + c[None, :]
    inside = (n < N)[:, None] & (c < C - LESS)[None, :]
    a = tl.load(x + place, mask=inside, other=0.0)
    b = tl.load(z + place, mask=inside, other=0.0)
    tl.store(out + place, tl.maximum(a, 0.0) * b * scale / (b * b + 1.0), mask=inside)


@triton.jit
def counted(x, out, N, BLOCK: tl.constexpr):
    """Add up blocks of x by atomic additions."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out, tl.sum(tl.load(x + i, mask=i < N, other=0.0)))


def launched(less=0, scale=0.5):
    def candidate(x, z):
        out = torch.empty_like(x)
        rows = x.shape[0] * x.shape[1]
        scaled_rows[(triton.cdiv(rows, 4),)](x, z, out, rows, x.shape[2], scale, ROWS=4, COLUMNS=8, LESS=less)
        return out

    return candidate


def test_a_kernel_of_ones_own_is_judged():
    text = "x[N,C]; z[N,C]; h[a,b] = relu(x[a,b]); y[a,b] = 1/2*h[a,b]*z[a,b]"
    numerator = pa.verify(launched(), text, {"N": 5, "C": 7})
    assert numerator.difference is not None  # the quotient is missing in the text

    def quotient(x, z):
        return launched()(x, z) * (z * z + 1)

    testing.assert_computes(quotient, text, {"N": 5, "C": 7})
    for wrong in (launched(less=1), launched(scale=0.5000001)):
        check = pa.verify(lambda x, z, wrong=wrong: wrong(x, z) * (z * z + 1), text, {"N": 5, "C": 7})
        assert not check


def test_atomic_additions_are_exact():
    def candidate(x):
        out = torch.zeros(x.shape[0])
        for k in range(x.shape[0]):
            counted[(3,)](x[k], out[k:], x.shape[1], BLOCK=8)
        return out

    testing.assert_computes(candidate, "x[N]; y = x[e]", {"N": 21})


@triton.jit
def exponential(x, out, N, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.exp(tl.exp(tl.load(x + i, mask=i < N, other=0.0))), mask=i < N)


def test_what_a_kernel_may_not_do_is_named():
    def candidate(x):
        out = torch.empty_like(x)
        exponential[(1,)](x, out, x.numel(), BLOCK=16)
        return out

    with pytest.raises(pa.ProofError, match="a kernel of `candidate` takes an exponential of what is known"):
        pa.verify(candidate, "x[N]; y[a] = x[a]", {"N": 5})


def test_the_interpreter_is_as_before_afterwards():
    x = torch.randn(2, 19, 17)
    before = products(x, x, 1.0, "ieee", TILE, None)
    pa.verify(lambda x: products(x, x, 1 / 7, "ieee", TILE, None), GRAM, {"N": 7, "C": 5})
    after = products(x, x, 1.0, "ieee", TILE, None)
    assert torch.equal(before, after)
    assert runtime.interpreting()
    torch.testing.assert_close(after, x.mT @ x)
