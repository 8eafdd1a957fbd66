"""`TESA`: the tensor element self-attention block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.nn.attention import Attention
from polyattn.nn.block import axes_of, check_input, inner_width, one_of, settling


class TESA(Attention):
    """TESA: `Z = X + alpha1 Y1 + alpha2 Y2 + alpha3 Y3`, a non-local block on each matricisation of X.

    Source: Babiloni et al., TESA: Tensor Element Self-Attention via Matricization, 2020, as Poly-NL (section 4.2)
    describes it: Y1 compares positions, Y2 rows and Y3 columns, each with a query, a key and a value of its own.

    Prefer it where rows and columns carry meaning as wholes. With `normalisation="scaling"` its cost is linear in the
    positions, because the plan never computes a similarity of positions; with "softmax" it is quadratic.

    Args:
        channels: channels of the input, the values and the output.
        reduction: channels / channels of the queries and keys.
        normalisation: "scaling" divides each term by the number of positions, "softmax" normalises similarities.
        alpha: initial value of the three learnable scalars. With 0 the block starts as the identity.
        dim: 2.
        memory_limit: the most bytes that each equation may allocate; see `Attention`.
        generator: random generator of the initial values.

    Shape:
        (B, channels, H, W) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> block = TESA(8)
    >>> block(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        *,
        normalisation: str = "scaling",
        alpha: float = 0.0,
        dim: int = 2,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        inner = inner_width(channels, reduction)
        softmax = one_of("normalisation", normalisation, ("scaling", "softmax")) == "softmax"
        # Set before super().__init__, which calls `reset_parameters`.
        self._scalars = alpha
        super().__init__(
            catalog.tesa(softmax=softmax, mean=not softmax),
            channels,
            sizes={"R": inner},
            residual=False,
            objective=objective,
            memory_limit=memory_limit,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.reduction, self.normalisation = reduction, normalisation
        self.dim = axes_of("TESA", dim, (2,))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial values; the three scalars start at `alpha`."""
        super().reset_parameters(generator)
        for scalar in (self.alpha1, self.alpha2, self.alpha3):
            assert isinstance(scalar, nn.Parameter)
            nn.init.constant_(scalar, self._scalars)

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        return (x + self.attend(x)).to(x.dtype)

    def _check(self, x: Tensor) -> None:
        check_input(x, "TESA", self.channels, self.dim)
