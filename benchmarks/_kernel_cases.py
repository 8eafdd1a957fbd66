"""What polyattn's Triton kernels compute, as equations: the claims that mutants of the kernels are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from polyattn.kernels.bilinear import naive as blocks
from polyattn.kernels.tuning import Tile

TILE = Tile(16, 16, 16, 4, 3)
WIDE = Tile(16, 32, 16, 4, 3)


def triton_of(name: str) -> Any:
    """Return a kernel's module, imported when it is used: it may be a mutant."""
    return import_module(f"polyattn.kernels.{name}.triton")


@dataclass(frozen=True)
class Case:
    """One claim.

    Attributes:
        text: the equation.
        call: a function of the equation's tensors that launches the kernel.
        sizes: of the tensors.
        files: sources that the kernel is made of, from `polyattn/kernels`, that of the function first.
        dtype: of the tensors that the kernel sees.
        layouts: of the tensors: "rows", "columns" (the axis before the last contiguous), "gaps"; in turn.
    """

    text: str
    call: Callable[..., Any]
    sizes: Mapping[str, int]
    files: Sequence[str]
    dtype: str = "float32"
    layouts: Sequence[str] = ("rows",)

    def __call__(self, *tensors: Tensor) -> Any:
        laid = [laid_out(t, self.layouts[k % len(self.layouts)]) for k, t in enumerate(tensors)]
        return self.call(*laid)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return a tensor with the same entries in another memory layout."""
    if x.dim() < 3 or layout == "rows":
        return x.contiguous()
    if layout == "columns":
        return x.mT.contiguous().mT if x.dim() == 3 else x.movedim(-1, -3).contiguous().movedim(-3, -1)
    apart = x.new_zeros((*x.shape[:-2], x.shape[-2] + 1, 2 * x.shape[-1] + 1))
    view = apart[..., 1:, 1::2]
    view.copy_(x)
    return view


GRAM, SUMS = ("gram/triton.py", "blocks.py"), ("hadamard_mean/triton.py", "blocks.py")
PROJECT, BILINEAR = ("project/triton.py", "blocks.py"), ("bilinear/triton.py", "blocks.py")
LINEAR = ("linear_attention/triton.py", "linear_attention/programs.py", "project/triton.py", "blocks.py")
HEADS = {"B": 2, "G": 2, "N": 17, "R": 3, "S": 17}
FLAT = {"B": 2, "N": 18, "C": 17, "R": 5, "S": 4}
MAP = {"G": 2, "M": 3, "S": 3, "U": 2, "T": 2, "V": 4}


def _one_head(name: str, *arguments: Any, w: Tensor) -> Any:
    heads = [a[:, None] if isinstance(a, Tensor) else a for a in arguments]
    found = getattr(triton_of("linear_attention"), name)(*heads, w=w)
    return found[:, 0] if isinstance(found, Tensor) else tuple(t[:, 0] for t in found)


def _ragged_mix(x: Tensor, k: Tensor, s: int, t: int) -> Tensor:
    """Mix the blocks of a map whose last row and column are missing, and add what these give and get, in torch."""
    small = x[:, :-1, :-1]
    whole, rest = blocks.block_mix(x, k, s, t), x - F.pad(small, (0, 0, 0, 1, 0, 1))
    mixed = triton_of("bilinear").block_mix(small, k, s, t, "ieee", TILE, 2)
    inside = mixed + blocks.block_mix(rest, k, s, t)[:, :-1, :-1]
    return torch.cat([torch.cat([inside, whole[:, :-1, -1:]], 2), whole[:, -1:]], 1)


def _ragged_cross(y: Tensor, x: Tensor, groups: int, s: int, t: int) -> Tensor:
    small = [z[:, :-1, :-1] for z in (y, x)]
    padded = [F.pad(z, (0, 0, 0, 1, 0, 1)) for z in small]
    crossed = triton_of("bilinear").block_cross(*small, groups, s, t, "ieee", TILE, 2)
    return crossed + blocks.block_cross(y, x, groups, s, t) - blocks.block_cross(*padded, groups, s, t)


SOFTMAX_ROWS = "p[g,n,r] = softmax[r](q[g,n,r]); "
SHARES = "t[g,n,r] = exp(k[g,n,r]-l[g,r]); "
PROJECTED = "k[n,r] = x[n,c]*w[c,r]; "
MIX = """x[H,W,C]; k[G,S,T,S,T]; where C = G*M; where H = S*U; where W = T*V
y[(i u),(j v),(g m)] = k[g,i,j,a,b]*x[(a u),(b v),(g m)]"""
CROSS = """z[H,W,C]; x[H,W,C]; where C = G*M; where H = S*U; where W = T*V
y[g,i,j,k,l] = z[(i u),(j v),(g m)]*x[(k u),(l v),(g m)]"""
S, T, G = MAP["S"], MAP["T"], MAP["G"]

CASES = {
    "gram": Case(
        "x[N,C]; y[d,b] = 3/10*x[e,d]*x[e,b]",
        lambda x: triton_of("gram").gram(x, 0.3, "ieee", TILE, 2), {"N": 21, "C": 18}, GRAM,
    ),
    "gram of columns": Case(
        "x[N,C]; y[d,b] = 3/10*x[e,d]*x[e,b]",
        lambda x: triton_of("gram").gram(x, 0.3, "ieee", TILE, 1), {"N": 20, "C": 18}, GRAM, "bfloat16", ("columns",),
    ),
    "cross_gram": Case(
        "x[N,C]; z[N,D]; y[d,b] = 3/10*x[e,d]*z[e,b]",
        lambda x, z: triton_of("gram").products(x, z, 0.3, "ieee", WIDE, 2),
        {"N": 20, "C": 18, "D": 35}, GRAM, layouts=("gaps", "rows"),
    ),
    "hadamard_mean": Case(
        "x[N,C]; where d : D; y[d] = 3/10*x[e,c]*w1[c,d]*x[e,f]*w2[f,d]",
        lambda x, w1, w2: triton_of("hadamard_mean").hadamard_mean(x, w1, w2, 0.3, "ieee", TILE, 2),
        {"N": 20, "C": 18, "D": 17}, SUMS,
    ),
    "hadamard_mean of columns": Case(
        "x[N,C]; where d : D; y[d] = 3/10*x[e,c]*w1[c,d]*x[e,f]*w2[f,d]",
        lambda x, w1, w2: triton_of("hadamard_mean").hadamard_mean(x, w1.mT.contiguous().mT, w2, 0.3, "ieee", TILE, 1),
        {"N": 20, "C": 18, "D": 5}, SUMS, "float16", ("columns",),
    ),
    "project": Case(
        "x[N,C]; s[C]; where d : D; y[n,d] = x[n,c]*s[c]*w[c,d]",
        lambda x, s, w: triton_of("project").project(x, w, s, "ieee", TILE), {"N": 18, "C": 17, "D": 19}, PROJECT,
    ),
    "project of columns": Case(
        "x[N,C]; w[C,D]; y[n,d] = x[n,c]*w[c,d]",
        lambda x, w: triton_of("project").project(x, w, None, "ieee", TILE),
        {"N": 20, "C": 18, "D": 19}, PROJECT, "bfloat16", ("columns", "gaps"),
    ),
    "project_pair": Case(
        "x[N,C]; m[C,D]; z[N,L]; s[L,D]; y[n,d] = x[n,c]*m[c,d] + z[n,l]*s[l,d]",
        lambda x, m, z, s: triton_of("project").project_pair(x, m, z, s, "ieee", TILE),
        {"N": 18, "C": 5, "D": 19, "L": 17}, PROJECT, layouts=("rows", "gaps"),
    ),
    "block_mix": Case(
        MIX, lambda x, k: triton_of("bilinear").block_mix(x, k.flatten(4).flatten(2, 3), S, T, "ieee", TILE, 2),
        MAP, BILINEAR,
    ),
    "block_mix of columns, many blocks": Case(
        MIX, lambda x, k: triton_of("bilinear").block_mix(x, k.flatten(4).flatten(2, 3), 5, 4, "ieee", TILE, 1),
        {"G": 2, "M": 2, "S": 5, "U": 1, "T": 4, "V": 2}, BILINEAR, "float16", ("columns", "rows"),
    ),
    "block_mix, ragged": Case(
        MIX, lambda x, k: _ragged_mix(x, k.flatten(4).flatten(2, 3), S, T), MAP, BILINEAR, layouts=("rows", "rows"),
    ),
    "block_cross": Case(
        CROSS,
        lambda z, x: triton_of("bilinear").block_cross(z, x, G, S, T, "ieee", TILE, 2)
        .unflatten(3, (S, T)).unflatten(2, (S, T)),
        MAP, BILINEAR,
    ),
    "block_cross of columns, many blocks": Case(
        CROSS,
        lambda z, x: triton_of("bilinear").block_cross(z, x, 2, 5, 4, "ieee", TILE, 1)
        .unflatten(3, (5, 4)).unflatten(2, (5, 4)),
        {"G": 2, "M": 2, "S": 5, "U": 1, "T": 4, "V": 2}, BILINEAR, layouts=("columns", "columns"),
    ),
    "block_cross, ragged": Case(
        CROSS, lambda z, x: _ragged_cross(z, x, G, S, T).unflatten(3, (S, T)).unflatten(2, (S, T)), MAP, BILINEAR,
    ),
    "linear_context": Case(
        "k[G,N,R]; v[G,N,S]; p[g,n,r] = softmax[n](k[g,n,r]); y[g,r,s] = p[g,n,r]*v[g,n,s]",
        lambda k, v: triton_of("linear_attention").context(k, v, "ieee", TILE, 2)[0],
        {"G": 2, "N": 18, "R": 17, "S": 3}, LINEAR, layouts=("rows", "gaps"),
    ),
    "the divisor of linear_context": Case(
        "k[G,N,R]; v[G,N,S]; y[g,r] = log(sum[n](exp(k[g,n,r])))",
        lambda k, v: triton_of("linear_attention").context(k, v, "ieee", TILE, 2)[1],
        {"G": 1, "N": 20, "R": 17, "S": 3}, LINEAR,
    ),
    "projected_context": Case(
        f"x[N,C]; v[N,S]; where r : R; {PROJECTED}p[n,r] = softmax[n](k[n,r]); y[r,s] = p[n,r]*v[n,s]",
        lambda x, v, w: _one_head("context", x, v, "ieee", TILE, 1, w=w)[0], FLAT, LINEAR,
    ),
    "linear_query": Case(
        f"q[G,N,R]; c[G,R,S]; {SOFTMAX_ROWS}y[g,n,s] = p[g,n,r]*c[g,r,s]",
        lambda q, c: triton_of("linear_attention").query(q, c, "ieee", TILE), HEADS, LINEAR,
    ),
    "linear_query of columns": Case(
        f"q[G,N,R]; c[G,R,S]; {SOFTMAX_ROWS}y[g,n,s] = p[g,n,r]*c[g,r,s]",
        lambda q, c: triton_of("linear_attention").query(q.mT.contiguous().mT, c, "ieee", TILE),
        {"G": 2, "N": 18, "R": 20, "S": 5}, LINEAR, "bfloat16", ("rows", "gaps"),
    ),
    "the gradient of linear_query by its rows": Case(
        f"q[G,N,R]; c[G,R,S]; d[G,N,S]; {SOFTMAX_ROWS}t[g,n,r] = d[g,n,s]*c[g,r,s]; i[g,n] = p[g,n,r]*t[g,n,r]\n"
        "y[g,n,r] = p[g,n,r]*t[g,n,r] - p[g,n,r]*i[g,n]",
        lambda q, c, d: triton_of("linear_attention").query_backward(q, c, d, "ieee", TILE, 2)[0],
        HEADS, LINEAR, layouts=("rows", "gaps"),
    ),
    "the gradient of linear_query by its context": Case(
        f"q[G,N,R]; c[G,R,S]; d[G,N,S]; {SOFTMAX_ROWS}y[g,r,s] = p[g,n,r]*d[g,n,s]",
        lambda q, c, d: triton_of("linear_attention").query_backward(q, c, d, "ieee", TILE, 2)[1],
        HEADS, LINEAR,
    ),
    "the gradient of linear_context by its keys": Case(
        f"k[G,N,R]; v[G,N,S]; c[G,R,S]; l[G,R]; d[G,R,S]; {SHARES}"
        "y[g,n,r] = t[g,n,r]*v[g,n,s]*d[g,r,s] - t[g,n,r]*c[g,r,s]*d[g,r,s]",
        lambda *t: triton_of("linear_attention").context_backward(*t, "ieee", TILE)[0],
        HEADS, LINEAR, layouts=("rows", "gaps", "rows", "rows", "rows"),
    ),
    "the gradient of linear_context by its values": Case(
        f"k[G,N,R]; v[G,N,S]; c[G,R,S]; l[G,R]; d[G,R,S]; {SHARES}y[g,n,s] = t[g,n,r]*d[g,r,s]",
        lambda *t: triton_of("linear_attention").context_backward(*t, "ieee", TILE)[1], HEADS, LINEAR,
    ),
}  # fmt: skip

ENTRIES = {
    name: next(
        entry
        for word, entry in (
            ("cross_gram", "products"), ("gram", "gram"), ("hadamard", "hadamard_mean"),
            ("project_pair", "project_pair"), ("projected_context", "context"), ("project", "project"),
            ("block_mix", "block_mix"),
            ("block_cross", "block_cross"), ("gradient of linear_query", "query_backward"),
            ("gradient of linear_context", "context_backward"), ("context", "context"), ("query", "query"),
        )
        if word in name
    )
    for name in CASES
}  # fmt: skip
"""The function in `triton.py` of each claim."""
