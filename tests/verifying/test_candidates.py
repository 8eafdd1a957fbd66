"""Candidates judged exactly: code of any form is right or wrong, whatever rounding would hide."""

import math
from fractions import Fraction
from random import Random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import polyattn as pa
from polyattn.verifying.ring.field import Field, draw_field, meaning, simplest
from polyattn.verifying.ring.size import Size

GRAM = "x[N,C]; y[a,b] = 1/N*x[a,c]*x[e,c]*x[e,b]"
SIZES = {"N": 5, "C": 3}
ATTENTION = """x[N,C]; where r : R
q[a,r] = x[a,c]*wq[c,r]
k[e,r] = x[e,c]*wk[c,r]
p[a,e] = softmax[e](q[a,r]*k[e,r])
y[a,b] = p[a,e]*x[e,b]"""
ATTENTION_SIZES = {"N": 5, "C": 3, "R": 2}


def in_channels(x):
    return x @ (x.mT @ x) / x.shape[1]


def in_positions(x):
    return x @ x.mT @ x * (1 / x.shape[1])


def by_einsum(x):
    return torch.einsum("bac,bec,bef->baf", x, x, x) / 5


def row_by_row(x):
    out = torch.empty_like(x)
    gram = torch.zeros(x.shape[0], x.shape[2], x.shape[2])
    for e in range(x.shape[1]):
        gram += x[:, e, :, None] * x[:, e, None, :]
    for a in range(x.shape[1]):
        out[:, a] = (x[:, a, None] @ gram)[:, 0].div_(x.shape[1])
    return out


def by_convolution(x):
    gram = (x.unsqueeze(-1) * x.unsqueeze(-2)).mean(1)
    return torch.cat([F.conv1d(s.T[None], g.mT[..., None]) for s, g in zip(x, gram, strict=True)]).mT


RIGHT = (in_channels, in_positions, by_einsum, row_by_row, by_convolution)


@pytest.mark.parametrize("candidate", RIGHT, ids=lambda f: f.__name__)
def test_every_way_to_write_a_layer_is_right(candidate):
    check = pa.verify(candidate, GRAM, SIZES, seed=1)
    assert check
    assert check.bound is not None
    assert check.bound < Fraction(1, 2**50)
    assert check.level == "modular"
    assert f"{candidate.__name__} as" in str(check)


SLIPS = {
    "the first position is forgotten": lambda x: x @ (x[:, 1:].mT @ x[:, 1:]) / x.shape[1],
    "the mean is over one position fewer": lambda x: x @ (x.mT @ x) / (x.shape[1] - 1),
    "the samples share a Gram matrix": lambda x: x @ (x.mT @ x).mean(0) / x.shape[1],
    "one entry lacks a factor": lambda x: in_channels(x) - 1e-12 * F.one_hot(torch.tensor(2), 3) * x[:, :1],
    "the factor is a little off": lambda x: x @ (x.mT @ x) * 0.2000001,
    "one row is never written": lambda x: torch.empty_like(x).index_copy(1, torch.arange(4), in_channels(x)[:, :4]),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_that_a_tolerance_passes_over_is_found(slip):
    check = pa.verify(SLIPS[slip], GRAM, SIZES, seed=1)
    assert not check
    assert check.difference is not None
    assert "by the candidate" in str(check)


def test_one_forgotten_term_of_twenty_thousand_shows_in_every_entry():
    text, sizes = "x[N,C]; y[c,d] = 1/N*x[e,c]*x[e,d]", {"N": 20_000, "C": 2}
    assert pa.verify(lambda x: x.mT @ x / 20_000, text, sizes)
    check = pa.verify(lambda x: x[:, 1:].mT @ x[:, 1:] / 20_000, text, sizes)
    assert check.difference is not None
    assert check.difference.count == check.entries


def by_hand(x, wq, wk):
    scores = (x @ wq) @ (x @ wk).mT
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    return weights @ x / weights.sum(-1, keepdim=True)


def online(x, wq, wk):
    """Softmax over blocks of two positions, with a running maximum and sum."""
    q, k = x @ wq, x @ wk
    largest = torch.full((*x.shape[:2], 1), -math.inf)
    below, total = torch.zeros(*x.shape[:2], 1), torch.zeros_like(x)
    for start in range(0, x.shape[1], 2):
        scores = q @ k[:, start : start + 2].mT
        now = torch.maximum(largest, scores.amax(-1, keepdim=True)) if start else scores.amax(-1, keepdim=True)
        weights = torch.exp(scores - now)
        shrink = torch.exp(largest - now) if start else torch.zeros(1)
        below = below * shrink + weights.sum(-1, keepdim=True)
        total = total * shrink + weights @ x[:, start : start + 2]
        largest = now
    return total / below


@pytest.mark.parametrize(
    "candidate",
    [
        by_hand,
        online,
        lambda x, wq, wk: F.scaled_dot_product_attention(x @ wq, x @ wk, x, scale=1.0),
        lambda x, wq, wk: torch.softmax(x @ (wq @ wk.mT) @ x.mT, dim=-1) @ x,
        lambda x, wq, wk: F.scaled_dot_product_attention(x @ wq * 2**0.25, x @ wk * 2**0.25, x),
    ],
)
def test_softmax_is_followed_through_its_exponentials(candidate):
    check = pa.verify(candidate, ATTENTION, ATTENTION_SIZES, seed=3)
    assert check
    assert check.bound is None
    assert "exponentials" in str(check)


@pytest.mark.parametrize(
    "candidate",
    [
        lambda x, wq, wk: F.scaled_dot_product_attention(x @ wq, x @ wk, x),
        lambda x, wq, wk: torch.softmax((x @ wq) @ (x @ wk).mT, dim=-2) @ x,
        lambda x, wq, wk: torch.softmax((x @ wq) @ (x @ wk).mT + torch.eye(5) * 1e-9, dim=-1) @ x,
    ],
)
def test_another_softmax_is_different(candidate):
    assert pa.verify(candidate, ATTENTION, ATTENTION_SIZES, seed=3).difference is not None


def test_masks_leave_positions_out():
    text = "x[N,C]; m[N,N]; y[a,b] = 1/N*m[a,e]*x[e,b]"

    def masked(x, m):
        return torch.where(torch.ones(5, 5, dtype=torch.bool).tril(), m, 0.0) @ x / 5

    assert not pa.verify(masked, text, SIZES)
    assert pa.verify(lambda x, m: masked(x, m) + m.triu(1) @ x / 5, text, SIZES)


def test_functions_without_laws_are_equal_only_by_name():
    text, sizes = "x[N,C]; where r : R; h[a,r] = relu(x[a,c]*w[c,r]); y[a,b] = h[a,r]*v[r,b]", ATTENTION_SIZES
    assert pa.verify(lambda x, w, v: F.relu(x @ w) @ v, text, sizes)
    scaled = pa.verify(lambda x, w, v: F.relu(2 * x @ w) @ v / 2, text, sizes)
    assert not scaled
    assert scaled.difference is None
    assert str(scaled).startswith("undecided")
    other = pa.verify(lambda x, w, v: F.gelu(x @ w) @ v, text, sizes)
    assert other.difference is not None
    assert str(other).startswith("no")


class Projected(nn.Module):
    def __init__(self, bias: bool = False):
        super().__init__()
        self.inner = nn.Linear(3, 3, bias=bias)
        self.proj = nn.Conv1d(3, 3, 1, bias=False)

    def forward(self, x):
        return self.proj(self.inner(x).mT).mT


def test_the_parameters_of_a_module_are_named():
    text = "x[N,C]; where d : C; y[a,b] = x[a,c]*w1[d,c]*w2[b,d]"
    names = {"w1": "inner.weight", "w2": "proj.weight"}
    module = Projected()
    before = {n: p.clone() for n, p in module.state_dict().items()}
    assert pa.verify(module, text, SIZES, parameters=names)
    assert all(torch.equal(before[n], p) for n, p in module.state_dict().items())
    assert not pa.verify(Projected(bias=True), text, SIZES, parameters=names)
    with pytest.raises(pa.ProofError, match=r"`parameters` does not say which parameter of Projected is 'w2'"):
        pa.verify(module, text, SIZES, parameters={"w1": "inner.weight"})
    with pytest.raises(pa.ProofError, match=r"'w1' is 'outer', which Projected does not have"):
        pa.verify(module, text, SIZES, parameters={"w1": "outer", "w2": "proj.weight"})
    with pytest.raises(pa.SizeError, match=r"'inner.weight' has shape \(3, 3\), but 'w1' is \(4, 4\)"):
        pa.verify(module, text, {"N": 5, "C": 4}, parameters=names)


def test_gradients_through_autograd_are_judged_too():
    text = "x[N,C]; z[N,C]; y[a,b] = x[a,c]*z[e,c]*x[e,b]"

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, z):
            ctx.save_for_backward(x, z)
            return x @ z.mT @ x

        @staticmethod
        def backward(ctx, seed):
            x, z = ctx.saved_tensors
            return seed @ (z.mT @ x).mT, (seed @ x.mT).mT @ x

    check = pa.verify(lambda x, z: x @ z.mT @ x, text, SIZES, derivative=True)
    assert check
    assert {c.tensor for c in check.checks} == {"y", "dx", "dz"}
    wrong = pa.verify(Wrong.apply, text, SIZES, derivative=True)
    assert {c.tensor for c in wrong.checks if not c} == {"dx"}


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (lambda x: x[x > 0], "compares values"),
        (lambda x: x + torch.randn(3), "random"),
        (lambda x: F.dropout(x, 0.5), "random"),
        (lambda x: x if x.sum() > 0 else -x, "compares values"),
        (lambda x: x.topk(2)[0], "topk"),
        (lambda x: (x, x), "one tensor, not tuple"),
        (lambda x: x * x.sum().item(), "reads a value"),
        (lambda x: x.exp().exp(), "exponential of an exponential"),
    ],
)
def test_operations_without_a_meaning_are_refused_by_name(candidate, said):
    with pytest.raises(pa.ProofError, match=said):
        pa.verify(candidate, GRAM, SIZES)


def test_a_candidate_that_cannot_run_is_wrong_and_says_why():
    check = pa.verify(lambda x: x @ x, GRAM, SIZES)
    assert not check
    assert "cannot run: RuntimeError" in str(check)
    check = pa.verify(lambda x: x[:, :2], GRAM, SIZES)
    assert not check
    assert "its y has shape (2, 2, 3), not (2, 5, 3)" in str(check)


def test_bad_arguments_are_named():
    with pytest.raises(pa.ProofError, match="`candidate` must be a function or a module, not int"):
        pa.verify(3, GRAM, SIZES)
    with pytest.raises(pa.ProofError, match="`level` is 'numeric'"):
        pa.verify(in_channels, GRAM, SIZES, level="numeric")
    with pytest.raises(pa.ProofError, match="`dtype` must be one of"):
        pa.verify(in_channels, GRAM, SIZES, dtype="int8")
    with pytest.raises(pa.SizeError, match="`sizes` must be a mapping"):
        pa.verify(in_channels, GRAM, 5)
    with pytest.raises(pa.SizeError):
        pa.verify(in_channels, GRAM, {"N": 5})
    with pytest.raises(pa.BudgetError, match="multiply-accumulates"):
        pa.verify(in_channels, GRAM, {"N": 500, "C": 300})


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_a_float_stands_for_the_simplest_rational_or_root(numerator, denominator):
    exact = Fraction(numerator, denominator)
    assert meaning(numerator / denominator) == (exact, 0)
    assert simplest(Fraction(numerator / denominator), 53) == exact
    rational, roots = meaning(math.sqrt(numerator / denominator))
    assert math.isclose(float(rational) ** 0.5**roots, math.sqrt(exact), rel_tol=1e-15)
    assert rational == (exact if roots else Fraction(math.isqrt(exact.numerator), math.isqrt(exact.denominator)))


@given(st.integers(0, 2**32), st.booleans())
def test_roots_and_exponentials_keep_their_laws(seed, exponentials):
    random = Random(seed)
    field = draw_field(random, 31, exponentials, [2, 3])
    two, three = field.root(Fraction(2)), field.root(Fraction(3))
    assert two * two % field.prime == 2
    assert two * three % field.prime == field.root(Fraction(6))
    assert field.root(Fraction(2), 2) ** 2 % field.prime == two
    if exponentials:
        a, b = (torch.tensor([random.randrange(field.order)]) for _ in range(2))
        assert field.exponential((a + b) % field.order) == field.exponential(a) * field.exponential(b) % field.prime
        assert field.exponential(torch.tensor([0])) == 1


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_products_in_halves_are_exact(seed, terms):
    random = Random(seed)
    field = Field(2**31 - 1)
    a = [random.randrange(field.prime) for _ in range(terms)]
    b = [random.choice([0, 1, field.prime - 1, random.randrange(field.prime)]) for _ in range(terms)]
    got = field.bilinear(torch.matmul, torch.tensor(a), torch.tensor(b), terms)
    assert got.item() == sum(x * y for x, y in zip(a, b, strict=True)) % field.prime


def test_memory_that_is_never_written_is_not_zero():
    assert not pa.verify(lambda x: torch.empty_like(x) + x, "x[N,C]; y[a,b] = x[a,b]", SIZES)
    assert pa.verify(lambda x: torch.zeros_like(x) + x, "x[N,C]; y[a,b] = x[a,b]", SIZES)


def test_windows_cut_by_unfold_are_followed():
    """A 1D convolution with a kernel of ones over three places, by unfold and by sums of slices."""
    text = "x[N,C]; y[b] = 1/N*x[e,b]"

    def candidate(x):
        windows = F.unfold(x.mT[:, :, None, :], (1, 5)).reshape(x.shape[0], 3, 5)
        return windows.sum(-1) / 5

    assert pa.verify(candidate, text, SIZES)


MAXIMUM = "x[N,C]; y[b] = max[a](x[a,b])"


@pytest.mark.parametrize(
    "candidate",
    [
        lambda x: x.amin(1),
        lambda x: x[:, :2].amax(1) + x[:, 2:].amax(1),
        lambda x: x.amax((1, 2)).unsqueeze(-1).expand(2, 3),
        lambda x: torch.minimum(x[:, 0], x[:, 1:].amax(1)),
    ],
)
def test_another_extreme_is_not_the_maximum(candidate):
    assert pa.verify(lambda x: x.max(1)[0], MAXIMUM, SIZES)
    assert pa.verify(candidate, MAXIMUM, SIZES).difference is not None


@pytest.mark.parametrize("other", [lambda x: x.clamp_min(0.21), lambda x: x.clamp_max(0.12), lambda x: x.sin()])
def test_functions_whose_names_have_the_same_letters_are_told_apart(other):
    text, sizes = "x[N,C]; y[a,b] = x[a,b]", {"N": 4, "C": 2}
    assert pa.verify(lambda x: x + x.clamp_min(0.12) - x.clamp_min(0.12), text, sizes)
    assert not pa.verify(lambda x: x + x.clamp_min(0.12) - other(x), text, sizes)


@pytest.mark.parametrize("view_first", [False, True])
def test_scores_masked_in_place_are_masked_in_every_view(view_first):
    text = "x[N,C]; m[N,N]; s[a,e] = x[a,c]*x[e,c] + m[a,e]; p[a,e] = softmax[e](s[a,e]); y[a,b] = p[a,e]*x[e,b]"

    def candidate(x, m):
        scores = x @ x.mT + m
        view = scores[:, :, :]
        (scores if view_first else view)[:, :, 0] = -math.inf
        return (view if view_first else scores).softmax(-1) @ x

    def right(x, m):
        return (x @ x.mT + m).softmax(-1) @ x

    def other(x, m):
        scores = (x @ x.mT + m).exp()
        return scores[..., 1:] @ x[:, 1:] / scores[..., 1:].sum(-1, keepdim=True)

    assert pa.verify(right, text, SIZES)
    assert not pa.verify(candidate, text, SIZES)
    assert not pa.verify(other, text, SIZES)
    assert pa.verify(lambda x, m: right(x, m) + candidate(x, m) - other(x, m), text, SIZES)


@pytest.mark.parametrize("size", [4, 8])
def test_roots_of_sizes_are_symbols_on_both_sides(size):
    text, sizes = "x[N,C]; y[a,b] = 1/sqrt(C)*x[a,d]*x[e,d]*x[e,b]", {"N": 3, "C": size}
    assert pa.verify(lambda x: x @ x.mT @ x / size**0.5, text, sizes)
    assert pa.verify(lambda x: (x * size**-0.25) @ (x * size**-0.25).mT @ x, text, sizes)
    assert not pa.verify(lambda x: x @ x.mT @ x / (size + 1) ** 0.5, text, sizes)


FRACTIONS = st.lists(st.fractions(-50, 50, max_denominator=40), min_size=1, max_size=6)


@given(FRACTIONS, FRACTIONS)
def test_bounds_hold_for_tensors_side_by_side(left, right):
    """Every entry times the least common denominator is a whole number within the bounds."""
    first, second = (Size.floats(map(float, values)) for values in (left, right))
    for size, values in ((first, left), (second, right), (first.join(second), left + right)):
        denominator = math.lcm(*(v.denominator for v in values))
        assert denominator < 2**size.common
        assert max(abs(v * denominator) for v in values) < 2**size.bits
