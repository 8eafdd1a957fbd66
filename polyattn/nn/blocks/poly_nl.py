"""`PolyNL`: the Poly-NL block."""

from __future__ import annotations

import torch
from torch import Tensor

from polyattn import catalog
from polyattn.nn.attention import Attention
from polyattn.nn.block import axes_of, check_input, inner_width


class PolyNL(Attention):
    """Poly-NL: `Z = alpha X + beta Y` with `Y = (Φ(X W1 ⊙ X W2) ⊙ X) W3`, Φ the mean over positions (Eq. 6).

    Source: Babiloni et al., Poly-NL: Linear Complexity Non-local Layers with Polynomials. The plan is Eq. 6 as written
    where positions are few, and its Gram form where they outnumber the channels. 3 C² + 2 parameters.

    Prefer it for many positions: cost and memory are linear in them, without any similarity.

    Args:
        channels: channels of the input and the output.
        reduction: channels / inner channels. Above 1, a fourth matrix W0 maps X to the inner channels.
        dim: the number of spatial axes.
        alpha, beta: initial values of the two learnable scalars. With `beta=0` the block starts as the identity.
        memory_limit: see `Attention`.
        generator: random generator of the initial values.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> block = PolyNL(8)
    >>> block(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 1,
        *,
        dim: int = 2,
        alpha: float = 1.0,
        beta: float = 0.0,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        inner = inner_width(channels, reduction)
        super().__init__(
            catalog.poly_nl(reduced=reduction > 1),
            channels,
            sizes={"R": inner} if reduction > 1 else None,
            alpha=alpha,
            beta=beta,
            objective=objective,
            memory_limit=memory_limit,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.reduction, self.dim = reduction, axes_of("PolyNL", dim)

    def _check(self, x: Tensor) -> None:
        check_input(x, "PolyNL", self.channels, self.dim)
