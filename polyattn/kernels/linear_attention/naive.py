"""The definitions of `linear_attention`, its two halves, and their gradients, in torch."""

import torch
from torch import Tensor

from polyattn.kernels.runtime import accumulator


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax over the channels of q, times (softmax over the positions of k)ᵀ v."""
    return query(q, context(k, v)[0])


def context(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Compute c[b,h,r,s] = Σ_n softmax_n(k)[b,h,n,r] v[b,h,n,s], and the logarithm of the softmax's divisor [b,h,r]."""
    wide = accumulator(k.dtype)
    divisor = k.to(wide).logsumexp(2)
    return (torch.exp(k.to(wide) - divisor[:, :, None]).mT @ v.to(wide)).to(v.dtype), divisor


def context_backward(k: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of k and v from c, its divisor and its gradient."""
    wide = accumulator(k.dtype)
    share = torch.exp(k.to(wide) - divisor[:, :, None])
    dc = dc.to(wide)
    inner = (dc * c.to(wide)).sum(3)[:, :, None]
    return (share * (v.to(wide) @ dc.mT - inner)).to(k.dtype), (share @ dc).to(v.dtype)


def query(q: Tensor, c: Tensor) -> Tensor:
    """Compute y[b,h,n,s] = Σ_r softmax_r(q)[b,h,n,r] c[b,h,r,s]."""
    wide = accumulator(q.dtype)
    return (torch.softmax(q.to(wide), 3) @ c.to(wide)).to(c.dtype)


def query_backward(q: Tensor, c: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of q and c."""
    wide = accumulator(q.dtype)
    share = torch.softmax(q.to(wide), 3)
    dshare = dy.to(wide) @ c.to(wide).mT
    dq = share * (dshare - (share * dshare).sum(3, keepdim=True))
    return dq.to(q.dtype), (share.mT @ dy.to(wide)).to(c.dtype)
