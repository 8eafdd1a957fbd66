"""Each kernel beside torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor

from _gpu.bench import Table, both
from polyattn import kernels
from polyattn.kernels.bilinear import cost as bilinear_cost
from polyattn.kernels.bilinear import naive as bilinear_naive
from polyattn.kernels.cross_gram import cost as cross_cost
from polyattn.kernels.gram import cost as gram_cost
from polyattn.kernels.hadamard_mean import cost as hadamard_cost
from polyattn.kernels.linear_attention import cost as attention_cost
from polyattn.kernels.project import cost as project_cost
from polyattn.kernels.projected_attention import cost as projected_cost

ITEM = 2
"""Bytes of a bfloat16."""


def product_rows(table: Table, n: int, c: int) -> None:
    bench, b, point = table.bench, table.bench.sizes.batch, (n, c)
    x, w1, w2, s = bench.draw(b, n, c), bench.draw(c, c) / c**0.5, bench.draw(c, c) / c**0.5, bench.draw(b, c)
    dy, m, square = bench.draw(b, n, c), bench.draw(b, c, c) / c**0.5, bench.draw(b, c, c) / c**0.5

    def torch_gram(x: Tensor) -> Tensor:
        return torch.baddbmm(x.new_zeros(()), x.mT, x, beta=0, alpha=1 / n)

    def torch_mean(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        return ((x @ w1) * (x @ w2)).mean(1)

    table.add("gram", "forward", point, gram_cost.forward(b, n, c, ITEM),
              kernel=lambda: kernels.gram(x, 1 / n), torch=lambda: torch_gram(x))  # fmt: skip
    table.add("cross_gram", "forward", point, cross_cost.forward(b, n, c, c, ITEM),
              kernel=lambda: kernels.cross_gram(x, dy), torch=lambda: x.mT @ dy)  # fmt: skip
    cost = cross_cost.forward(b, n, c, c, ITEM) + cross_cost.backward(b, n, c, c, ITEM)
    table.add("cross_gram", "training", point, cost, kernel=both(kernels.cross_gram, [x, dy]),
              torch=both(lambda x, y: x.mT @ y, [x, dy]))  # fmt: skip
    compiled = bench.compiled(torch_mean)
    table.add("hadamard_mean", "forward", point, hadamard_cost.forward(b, n, c, c, ITEM),
              kernel=lambda: kernels.hadamard_mean(x, w1, w2), torch=lambda: torch_mean(x, w1, w2),
              compiled=lambda: compiled(x, w1, w2))  # fmt: skip
    cost = hadamard_cost.forward(b, n, c, c, ITEM) + hadamard_cost.backward(b, n, c, c, ITEM)
    table.add("hadamard_mean", "training", point, cost,
              kernel=both(kernels.hadamard_mean, [x, w1, w2]), torch=both(torch_mean, [x, w1, w2]))  # fmt: skip
    table.add("project", "forward", point, project_cost.project(b, n, c, c, ITEM),
              kernel=lambda: kernels.project(x, w1, s), torch=lambda: x @ (s[:, :, None] * w1))  # fmt: skip
    table.add("project_pair", "forward", point, project_cost.project_pair(b, n, c, c, c, ITEM),
              kernel=lambda: kernels.project_pair(dy, m.mT, x, square),
              torch=lambda: torch.baddbmm(dy @ m.mT, x, square))  # fmt: skip


def bilinear_rows(table: Table, n: int, c: int) -> None:
    bench, b, point = table.bench, table.bench.sizes.batch, (n, c)
    h = next(h for h in range(int(n**0.5), 0, -1) if n % h == 0)
    maps = bench.draw(b, h, n // h, c)
    p, q = torch.softmax(bench.draw(b, 4, 7, 7), 3), torch.softmax(bench.draw(b, 4, 7, 7), 2)
    arguments = (b, h, n // h, c, 4, 7, 7, ITEM)
    cost = bilinear_cost.forward(*arguments)
    table.add("bilinear", "forward", point, cost,
              kernel=lambda: kernels.bilinear(maps, p, q), torch=lambda: two_products(maps, p, q))  # fmt: skip
    table.add("bilinear", "training", point, cost + bilinear_cost.backward(*arguments),
              kernel=both(kernels.bilinear, [maps, p, q]), torch=both(two_products, [maps, p, q]))  # fmt: skip


def two_products(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The block-bilinear transform by torch's matrix products."""
    rows = torch.einsum("bgik,bgmkulv->bgmiulv", p, bilinear_naive.blocks(x, p, q))
    return bilinear_naive.joined(torch.einsum("bgmiulv,bglj->bgmiujv", rows, q), x.shape)


def attention_rows(table: Table, n: int, c: int) -> None:
    bench, b, point = table.bench, table.bench.sizes.batch, (n, c)
    keys = min(64, c)
    arguments = [bench.draw(b, 1, n, keys) for _ in range(3)]
    compiled = bench.compiled(published)
    cost = attention_cost.forward(b, n, keys, keys, ITEM)
    table.add("linear_attention", "forward", point, cost,
              kernel=lambda: kernels.linear_attention(*arguments), torch=lambda: published(*arguments),
              compiled=lambda: compiled(*arguments))  # fmt: skip
    table.add("linear_attention", "training", point, cost + attention_cost.backward(b, n, keys, keys, ITEM),
              kernel=both(kernels.linear_attention, arguments), compiled=both(compiled, arguments),
              torch=both(published, arguments))  # fmt: skip
    projected_rows(table, n, c, keys)


def projected_rows(table: Table, n: int, c: int, keys: int) -> None:
    """The halves of E-NL with the projection of keys or queries in them, beside a product by torch and the half."""
    bench, b, point = table.bench, table.bench.sizes.batch, (n, c)
    x, w, made = bench.draw(b, n, c), bench.draw(c, keys) / c**0.5, bench.draw(b, keys, c)

    def context(x: Tensor, w: Tensor) -> Tensor:
        return kernels.linear_context((x @ w)[:, None], x[:, None])[:, 0]

    def query(x: Tensor, w: Tensor, c: Tensor) -> Tensor:
        return kernels.linear_query((x @ w)[:, None], c[:, None])[:, 0]

    table.add("projected_context", "forward", point, projected_cost.context(b, n, c, keys, c, ITEM, same=True),
              kernel=lambda: kernels.projected_context(x, w, x), half=lambda: context(x, w),
              torch=lambda: torch.softmax(x @ w, 1).mT @ x)  # fmt: skip
    table.add("projected_query", "forward", point, projected_cost.query(b, n, c, keys, c, ITEM),
              kernel=lambda: kernels.projected_query(x, w, made), half=lambda: query(x, w, made),
              torch=lambda: torch.softmax(x @ w, 2) @ made)  # fmt: skip


def published(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient attention as its authors write it: two softmaxes, two products."""
    return torch.softmax(q, 3) @ (torch.softmax(k, 2).mT @ v)
