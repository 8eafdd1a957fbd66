"""The definition of `cross_gram` in torch."""

from torch import Tensor

from polyattn.kernels.runtime import accumulator


def cross_gram(x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    """Compute g[b,c,d] = scale * Σ_n x[b,n,c] y[b,n,d], summed in float32."""
    wide = accumulator(x.dtype)
    return (scale * (x.to(wide).mT @ y.to(wide))).to(x.dtype)
