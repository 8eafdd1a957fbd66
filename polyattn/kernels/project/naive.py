"""The definitions of `project` and `project_pair` in torch."""

from torch import Tensor

from polyattn.kernels.runtime import accumulator


def project(x: Tensor, w: Tensor, scale: Tensor | None = None) -> Tensor:
    """Compute y[b,n,o] = Σ_c x[b,n,c] scale[b,c] w[b,c,o]; one w (C, O) serves the whole batch."""
    wide = accumulator(x.dtype)
    rows = x.to(wide) if scale is None else x.to(wide) * scale.to(wide)[:, None]
    return (rows @ w.to(wide)).to(x.dtype)


def project_pair(a: Tensor, m: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """Compute y[b,n,o] = Σ_c a[b,n,c] m[b,c,o] + Σ_c x[b,n,c] s[b,c,o]."""
    wide = accumulator(x.dtype)
    return (a.to(wide) @ m.to(wide) + x.to(wide) @ s.to(wide)).to(x.dtype)
