"""`projected_context`, `projected_query` and their gradients in torch: a projection and half of `linear_attention`."""

from torch import Tensor

from polyattn.kernels.linear_attention import naive
from polyattn.kernels.runtime import accumulator


def context(x: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Compute c[b,r,s] = Σ_n softmax_n(x w)[b,n,r] v[b,n,s], and the logarithm of the softmax's divisor [b,r]."""
    c, divisor = naive.context(projection(x, w), v[:, None])
    return c[:, 0], divisor[:, 0]


def context_backward(x: Tensor, w: Tensor, v: Tensor, c: Tensor, divisor: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x w and of v from c, its divisor and its gradient."""
    dk, dv = naive.context_backward(projection(x, w), *(t[:, None] for t in (v, c, divisor, dc)))
    return dk[:, 0].to(x.dtype), dv[:, 0].to(v.dtype)


def query(x: Tensor, w: Tensor, c: Tensor) -> Tensor:
    """Compute y[b,n,s] = Σ_r softmax_r(x w)[b,n,r] c[b,r,s]."""
    return naive.query(projection(x, w), c[:, None])[:, 0]


def query_backward(x: Tensor, w: Tensor, c: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x w and of c."""
    dq, dc = naive.query_backward(projection(x, w), c[:, None], dy[:, None])
    return dq[:, 0].to(x.dtype), dc[:, 0]


def projection(x: Tensor, w: Tensor) -> Tensor:
    """Compute (x w)[b,n,r] of one head, not rounded to the dtype of x."""
    wide = accumulator(x.dtype)
    return (x.to(wide) @ w.to(wide))[:, None]
