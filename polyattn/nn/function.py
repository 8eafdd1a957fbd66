"""`SpecFunction`: a specification as a function of tensors, on the plan for the shapes that come."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.lowering import FUNCTIONS
from polyattn.nn.planned import NOMINAL_BATCH, is_static, planned


class SpecFunction:
    """What a specification says, as a function of its inputs and parameters by name; blocks call it in `forward`.

    Args:
        spec: with any number of inputs.
        sizes: those that the inputs' shapes do not fix. Sizes that the specification has not are left out, so that its
            parts take those of the whole.
        objective: which plan; see `polyattn.plan`. "training" plans the backward pass too where gradients are wanted,
            and is "forward" where they are not.

    >>> function = SpecFunction(Spec("x[N,C]; y[a,b] = 1/N*x[a,d]*w[d,b]"))
    >>> function({"x": torch.ones(2, 5, 3), "w": torch.eye(3)}).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, spec: Spec, sizes: Mapping[str, int] | None = None, objective: str = "training"):
        self.spec, self.text, self.objective = spec, str(spec), objective
        self.sizes = tuple((name, size) for name, size in (sizes or {}).items() if name in spec.sizes.names)
        self.position_sizes = tuple(size for shape in spec.inputs.values() for size in shape)
        self.inputs, self.parameters = tuple(spec.inputs), tuple(spec.parameters)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The output (B, *axes) for inputs (B, *axes) and parameters.

        Raises:
            SizeError: a tensor's shape contradicts another one's or the given sizes.
        """
        inputs = [tensors[name] for name in self.inputs]
        parameters = [tensors[name] for name in self.parameters]
        batch = inputs[0].shape[0]
        name = planned(
            self.text,
            self.sizes,
            self.position_sizes,
            tuple(index(n) for x in inputs for n in x.shape[1:]),  # numbers, also where a compiler has symbols
            batch if is_static(batch) else NOMINAL_BATCH,
            self._objective_for(*inputs, *parameters),
            inputs[0].device.type,
            _lies_channels_first(inputs[0]),
        )
        return getattr(FUNCTIONS, name)(*inputs, *parameters)

    def _objective_for(self, *tensors: Tensor) -> str:
        """A backward pass is planned only where one can follow."""
        if self.objective == "training" and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
            return "forward"
        return self.objective


def _lies_channels_first(x: Tensor) -> bool:
    """Whether a tensor (B, *positions, C) is a view of one that lies in memory as (B, C, *positions)."""
    first = False
    # A compiler with symbolic strides decides at `if`, where it would otherwise pass a symbol on.
    if x.dim() > 2 and x.stride(-1) > x.stride(1):
        first = True
    return first
