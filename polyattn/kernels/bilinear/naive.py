"""The definition of `bilinear` in torch, and of the two linear operations inside it.

A map of H x W positions is cut into S x T blocks of U x V positions, U = ceil(H / S) and V = ceil(W / T); if S or T
does not divide its side, the map is padded with zeros.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from polyattn.kernels.runtime import accumulator


def bilinear(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Compute y[b,(i u),(j v),(g n)] = Σ_kl p[b,g,i,k] x[b,(k u),(l v),(g n)] q[b,g,l,j], in float32."""
    wide = accumulator(x.dtype)
    y = torch.einsum("bgik,bgmkulv,bglj->bgmiujv", p.to(wide), blocks(x.to(wide), p, q), q.to(wide))
    return joined(y, x.shape).to(x.dtype)


def block_mix(x: Tensor, k: Tensor, s: int, t: int) -> Tensor:
    """Replace every block by a sum of blocks with weights k[b,g,(i j),(k l)]: `bilinear` if k is p ⊗ qᵀ."""
    wide = accumulator(x.dtype)
    weights = k.to(wide).unflatten(3, (s, t)).unflatten(2, (s, t))
    y = torch.einsum("bgijkl,bgmkulv->bgmiujv", weights, split(x.to(wide), k.shape[1], s, t))
    return joined(y, x.shape).to(x.dtype)


def block_cross(y: Tensor, x: Tensor, groups: int, s: int, t: int) -> Tensor:
    """Compute inner products of blocks, c[b,g,(i j),(k l)] = Σ_uvm y[b,(i u),(j v),(g m)] x[b,(k u),(l v),(g m)]."""
    wide = accumulator(x.dtype)
    left, right = split(y.to(wide), groups, s, t), split(x.to(wide), groups, s, t)
    return torch.einsum("bgmiujv,bgmkulv->bgijkl", left, right).flatten(4).flatten(2, 3).to(x.dtype)


def blocks(x: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Split x into the blocks of p and q."""
    return split(x, p.shape[1], p.shape[2], q.shape[2])


def split(x: Tensor, groups: int, s: int, t: int) -> Tensor:
    """Reshape (B, H, W, C) to (B, G, M, S, U, T, V)."""
    height, width = x.shape[1:3]
    padded = pad(x, (0, 0, 0, -width % t, 0, -height % s))
    parts = padded.unflatten(3, (groups, -1)).unflatten(2, (t, -1)).unflatten(1, (s, -1))
    return parts.permute(0, 5, 6, 1, 2, 3, 4)


def joined(y: Tensor, shape: torch.Size) -> Tensor:
    """Invert `split`, and crop to a shape."""
    return y.permute(0, 3, 4, 5, 6, 1, 2).flatten(5).flatten(3, 4).flatten(1, 2)[:, : shape[1], : shape[2]]
