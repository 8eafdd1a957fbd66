"""The definition of `gram` in torch."""

from torch import Tensor

from polyattn.kernels.runtime import accumulator


def gram(x: Tensor, scale: float = 1.0) -> Tensor:
    """Compute g[b,c,d] = scale * Σ_n x[b,n,c] x[b,n,d], summed in float32."""
    wide = x.to(accumulator(x.dtype))
    return (scale * (wide.mT @ wide)).to(x.dtype)
