"""`Attention`: any specification with an input and an output of one shape, as a trainable module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.nn.block import settling
from polyattn.nn.layer import Layer
from polyattn.nn.sizes import given_sizes, layout
from polyattn.planning import Plan
from polyattn.runtime.communicator import NARROW
from polyattn.runtime.layouts import restrided


class Attention(Layer):
    """A polynomial layer `alpha * x + beta * y` with y given by the specification (Poly-NL, section 4.1).

    The last slot of the input is the channels; the slots before it are the positions: one slot for all of them
    (`x[N,C]`: any number of spatial axes, flattened), or one per spatial axis (`x[H,W,C]`). The layer plans each input
    shape once and caches the plan.

    Parameters are drawn from a normal distribution of variance 1 / fan-in. The fan-in is the product of the sizes of
    the indices shared with one neighbouring factor of the term (see `polyattn.nn.initialise.fan_in`). Scalar parameters
    start at 1, and a parameter alone in its term (a bias) at 0.

    Args:
        spec: a specification or its text, with one input and an output of the input's shape.
        channels: the size of the input's last slot.
        sizes: the remaining sizes of parameters; the channels are known, and sizes without parameters follow from the
            input's shape.
        residual: whether to add the input. Without it the output is y.
        alpha, beta: initial values of the learnable scalars. With `beta=0` and `alpha=1` the layer starts as the
            identity and can be inserted into a trained network.
        objective: objective of the plan, see `polyattn.plan`. "training" also plans the backward pass if gradients are
            required, and equals "forward" otherwise.
        memory_limit: the most bytes that the equation may allocate, and its backward pass, in float32; see
            `polyattn.plan`. The residual takes two maps more.
        generator: random generator of the initial values.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SpecError: several inputs, or an output of another shape.
        SizeError: a missing or contradictory size, named; at call time an input of another shape.

    >>> layer = Attention("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,b]", channels=8)
    >>> layer(torch.zeros(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    alpha: nn.Parameter | None
    beta: nn.Parameter | None

    def __init__(
        self,
        spec: Spec | str,
        channels: int,
        *,
        sizes: Mapping[str, int] | None = None,
        residual: bool = True,
        alpha: float = 1.0,
        beta: float = 0.0,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        spec = Spec(spec) if isinstance(spec, str) else spec
        # Set before super().__init__, which registers the parameters and draws their values.
        self.channels, self._residual, self._initial = channels, residual, (alpha, beta)
        self.channel_size, self.position_sizes = layout(spec)
        super().__init__(
            spec,
            given_sizes(spec, channels, sizes),
            objective=objective,
            memory_limit=memory_limit,
            generator=generator,
            device=device,
            dtype=dtype,
        )

    def _register(self, factory: Mapping[str, Any]) -> None:
        super()._register(factory)
        for scalar in ("alpha", "beta"):
            self.register_parameter(scalar, nn.Parameter(torch.empty(1, **factory)) if self._residual else None)
        self._attributes += ("alpha", "beta")

    RESERVED = Layer.RESERVED | {"alpha", "beta", "channels", "channel_size", "position_sizes"}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial values, as described above."""
        super().reset_parameters(generator)
        with torch.no_grad():
            if self.alpha is not None and self.beta is not None:
                self.alpha.fill_(self._initial[0])
                self.beta.fill_(self._initial[1])

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        try:
            *values, alpha, beta = self._held() if torch.compiler.is_compiling() else self._fetch(self._parameters)
        except KeyError:  # a parametrization has replaced a parameter
            *values, alpha, beta = self._held()
        if self._scalar:
            values = self._in_shape(values)
        y = self._function.of_map(x, len(self.position_sizes), values, self._check)
        if alpha is None or beta is None:
            return restrided(y)
        if x.dtype in NARROW:
            # One-element factors keep the map's dtype; autocast on a GPU would widen `addcmul` to its widest operand.
            return (alpha.squeeze() * x + beta.squeeze() * y).to(x.dtype)
        # addcmul fuses scaling y and adding it, so only alpha * x is an extra map.
        y = torch.addcmul(alpha * x, beta, y)
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @settling
    def attend(self, x: Tensor) -> Tensor:
        """Compute the specification's output for x, without the residual."""
        values = self._in_shape(self._held()[:-2])
        return restrided(self._function.of_map(x, len(self.position_sizes), values, self._check))

    def running_plan(self, sizes: Mapping[str, int], batch: int = 1, gradient: bool = True) -> Plan:
        """Return the plan that the layer runs on the processor for maps of these sizes.

        Args:
            sizes: a number for each size of the map's positions, such as N; others replace the layer's own.
            batch: the batch.
            gradient: whether a backward pass can follow.

        Raises:
            SizeError: a size is missing, unknown or contradictory.

        >>> Attention("x[N,C]; y[a,b] = x[a,d]*w[d,b]", 4).running_plan({"N": 10}).macs
        160
        """
        return self._function.plan(sizes, batch, gradient)

    def extra_repr(self) -> str:
        definitions = "; ".join(map(str, self.spec.statements.definitions))
        return f"{definitions}; channels={self.channels}, sizes={self.sizes}"

    def _check(self, x: Tensor) -> None:
        # One axis N takes any number of spatial axes; several axes must match the specification one by one.
        positions, shape = len(self.position_sizes), x.shape
        if len(shape) < 3 or (positions > 1 and len(shape) != positions + 2):
            wanted = "(B, C, ...)" if positions == 1 else f"(B, C, {', '.join(self.position_sizes)})"
            raise SizeError(f"the input must have the shape {wanted}, not {tuple(shape)}")
        if shape[1] != self.channels:
            raise SizeError(
                f"the layer has {self.channels} channels, but the input of shape {tuple(shape)} has {shape[1]}"
            )
        if not x.is_floating_point():
            raise SizeError(f"the input must be of a floating dtype, not {x.dtype}")
        if not all(shape[2:]):
            raise SizeError(f"the input has no positions: its shape is {tuple(shape)}")
