"""The definitions that kernels are compared with, against numpy and loops over the equations of their docstrings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from polyattn import kernels
from polyattn.kernels.bilinear import naive as bilinear
from polyattn.kernels.cross_gram import naive as cross_gram
from polyattn.kernels.gram import naive as gram
from polyattn.kernels.hadamard_mean import naive as hadamard_mean
from polyattn.kernels.linear_attention import naive as linear_attention
from polyattn.kernels.project import naive as project
from polyattn.kernels.projected_attention import naive as projected_attention

B, H, N, C, R, V = 2, 3, 5, 4, 3, 6


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def same(found: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(np.asarray(expected)))


def shares(array: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(array)
    return powers / powers.sum(axis, keepdims=True)


def test_gram_matrices_have_their_scale():
    x, y = drawn(B, N, C), drawn(B, N, R)
    same(gram.gram(x, 0.3), 0.3 * np.einsum("bnc,bnd->bcd", x, x))
    same(cross_gram.cross_gram(x, y, 0.3), 0.3 * np.einsum("bnc,bnd->bcd", x, y))


def test_a_mean_of_products_has_its_scale_and_is_by_default_over_the_positions():
    x, w1, w2 = drawn(B, N, C), drawn(C, R), drawn(C, R)
    total = np.einsum("bnc,cd,bne,ed->bd", x, w1, x, w2)
    same(hadamard_mean.hadamard_mean(x, w1, w2, 0.3), 0.3 * total)
    same(kernels.hadamard_mean(x, w1, w2), total / N)


def test_the_gradients_of_scaled_products_have_the_scale():
    """N = 5 and N = 2 positions of 4 channels: the gradient of a mean of products has two forms."""
    x, weights = drawn(B, N, C).requires_grad_(), drawn(B, C, C)
    (kernels.gram(x, 0.3) * weights).sum().backward()
    rows = x.detach()
    same(x.grad, 0.3 * (np.einsum("bnd,bcd->bnc", rows, weights) + np.einsum("bnd,bdc->bnc", rows, weights)))
    for positions in (N, 2):
        x, w1, w2 = (t.requires_grad_() for t in (drawn(B, positions, C), drawn(C, R), drawn(C, R)))
        weights = drawn(B, R)
        (kernels.hadamard_mean(x, w1, w2, 0.3) * weights).sum().backward()
        rows, one, two = x.detach(), w1.detach(), w2.detach()
        same(w1.grad, 0.3 * np.einsum("bd,bnc,bne,ed->cd", weights, rows, rows, two))
        same(w2.grad, 0.3 * np.einsum("bd,bnc,bne,ed->cd", weights, rows, rows, one))
        mixed = np.einsum("bd,cd,bne,ed->bnc", weights, one, rows, two)
        same(x.grad, 0.3 * (mixed + np.einsum("bd,cd,bne,ed->bnc", weights, two, rows, one)))


def test_projections_scale_channels_and_pairs_are_added():
    x, w, scale, m = drawn(B, N, C), drawn(C, V), drawn(B, C), drawn(B, C, V)
    same(project.project(x, w), np.einsum("bnc,co->bno", x, w))
    same(project.project(x, m, scale), np.einsum("bnc,bc,bco->bno", x, scale, m))
    a, s = drawn(B, N, R), drawn(B, R, V)
    same(project.project_pair(a, s, x, m), np.einsum("bnc,bco->bno", a, s) + np.einsum("bnc,bco->bno", x, m))


def test_linear_attention_is_two_softmaxes_of_which_each_adds_up_to_one():
    q, k, v = drawn(B, H, N, R), drawn(B, H, N, R), drawn(B, H, N, V)
    context = np.einsum("bhnr,bhns->bhrs", shares(k.numpy(), 2), v)
    found, divisor = linear_attention.context(k, v)
    same(found, context)
    same(divisor, np.log(np.exp(k.numpy()).sum(2)))
    y = np.einsum("bhnr,bhrs->bhns", shares(q.numpy(), 3), context)
    same(linear_attention.query(q, found), y)
    same(linear_attention.linear_attention(q, k, v), y)


def test_the_gradients_of_linear_attention_are_finite_differences():
    """Central differences in float64, of a sum with fixed weights."""
    q, k, v, c = drawn(1, 1, 3, 2), drawn(1, 1, 3, 2), drawn(1, 1, 3, 2), drawn(1, 1, 2, 2)
    dc, dy = drawn(1, 1, 2, 2), drawn(1, 1, 3, 2)

    def context(k: np.ndarray, v: np.ndarray) -> float:
        return float((np.einsum("bhnr,bhns->bhrs", shares(k, 2), v) * dc.numpy()).sum())

    def query(q: np.ndarray, c: np.ndarray) -> float:
        return float((np.einsum("bhnr,bhrs->bhns", shares(q, 3), c) * dy.numpy()).sum())

    made, divisor = linear_attention.context(k, v)
    pairs = [
        (linear_attention.context_backward(k, v, made, divisor, dc), context, (k.numpy(), v.numpy())),
        (linear_attention.query_backward(q, c, dy), query, (q.numpy(), c.numpy())),
    ]
    for found, function, arrays in pairs:
        for number, gradient in enumerate(found):
            for place in np.ndindex(*arrays[number].shape):
                step = np.zeros(arrays[number].shape)
                step[place] = 1e-5
                up, down = ([a + sign * step if n == number else a for n, a in enumerate(arrays)] for sign in (1, -1))
                assert float(gradient[place]) == pytest.approx((function(*up) - function(*down)) / 2e-5, abs=1e-8)


def test_projected_attention_is_linear_attention_of_projections_that_are_not_rounded():
    x, w, v, c = drawn(B, N, C), drawn(C, R), drawn(B, N, V), drawn(B, R, V)
    keys = np.einsum("bnc,cr->bnr", x, w)
    same(projected_attention.context(x, w, v)[0], np.einsum("bnr,bns->brs", shares(keys, 1), v))
    same(projected_attention.query(x, w, c), np.einsum("bnr,brs->bns", shares(keys, 2), c))
    # 8 + 2^-5 has more digits than bfloat16.
    x, w = torch.tensor([[[8.0, 2.0**-5]]]).bfloat16(), torch.ones(2, 1).bfloat16()
    assert projected_attention.projection(x, w).item() == 8 + 2.0**-5


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (3, 4)])
def test_a_bilinear_transform_mixes_blocks_of_a_map_that_zeros_continue(height: int, width: int):
    """Loops over blocks; S = 2 and T = 3 do not divide 5, 3, 7 and 4."""
    groups, s, t = 2, 2, 3
    x, p, q = drawn(B, height, width, C), drawn(B, groups, s, s), drawn(B, groups, t, t)
    u, v, m = -(-height // s), -(-width // t), C // groups
    padded = np.zeros((B, s * u, t * v, C))
    padded[:, :height, :width] = x.numpy()

    def block(i: int, j: int, g: int) -> np.ndarray:
        return padded[:, i * u : (i + 1) * u, j * v : (j + 1) * v, g * m : (g + 1) * m]

    mixed, cross = np.zeros_like(padded), np.zeros((B, groups, s * t, s * t))
    weights = np.einsum("bgik,bglj->bgijkl", p, q).reshape(B, groups, s * t, s * t)
    for g, i, j, k, l in itertools.product(range(groups), range(s), range(t), range(s), range(t)):
        weight = weights[:, g, i * t + j, k * t + l][:, None, None, None]
        mixed[:, i * u : (i + 1) * u, j * v : (j + 1) * v, g * m : (g + 1) * m] += weight * block(k, l, g)
        cross[:, g, i * t + j, k * t + l] = (block(i, j, g) * block(k, l, g)).sum((1, 2, 3))
    same(bilinear.bilinear(x, p, q), mixed[:, :height, :width])
    same(bilinear.block_mix(x, torch.from_numpy(weights), s, t), mixed[:, :height, :width])
    same(bilinear.block_cross(x, x, groups, s, t), cross)
