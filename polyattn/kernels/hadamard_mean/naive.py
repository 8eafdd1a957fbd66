"""The definition of `hadamard_mean` in torch."""

from torch import Tensor

from polyattn.kernels.runtime import accumulator


def hadamard_mean(x: Tensor, w1: Tensor, w2: Tensor, scale: float) -> Tensor:
    """Compute m[b,d] = scale * Σ_n (x w1)[b,n,d] (x w2)[b,n,d], summed in float32."""
    wide = accumulator(x.dtype)
    rows = x.to(wide)
    return (scale * ((rows @ w1.to(wide)) * (rows @ w2.to(wide))).sum(1)).to(x.dtype)
