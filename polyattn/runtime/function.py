"""`SpecFunction`: a specification as a function of tensors, on the plan for the shapes that come."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.lowering import FUNCTIONS, products_dtype, version
from polyattn.runtime.plan_cache import NOMINAL_BATCH, is_static, planned


class SpecFunction:
    """A specification as a function of its inputs and parameters by name; blocks call it in `forward`.

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
        self._names = (*self.inputs, *self.parameters)
        self._made: dict[Hashable, Callable[..., Tensor]] = {}

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The output (B, *axes) for inputs (B, *axes) and parameters.

        Raises:
            SizeError: a tensor's shape contradicts another one's or the given sizes.
        """
        return self.apply(*[tensors[name] for name in self._names])

    def apply(self, *tensors: Tensor) -> Tensor:
        """The same for the inputs and then the parameters, each in the order of the specification.

        A shape that came before finds its function here; what it is looked up by is all that a plan depends on.
        """
        if torch.compiler.is_compiling():
            return self._planned(tensors)(*tensors)
        first = tensors[0]
        try:
            key = (first.shape, first.stride(), first.device, needs_gradient(tensors), version(), products_dtype(first))
            if len(self.inputs) > 1:
                key += tuple([x.shape for x in tensors[1 : len(self.inputs)]])
            function = self._made.get(key)
        except TypeError:  # lengths that are symbols
            return self._planned(tensors)(*tensors)
        if function is None:
            function = self._planned(tensors)
            if all(type(n) is int for x in tensors[: len(self.inputs)] for n in x.shape):  # and not a tracer's
                self._made[key] = function
        return function(*tensors)

    def _planned(self, tensors: Sequence[Tensor]) -> Callable[..., Tensor]:
        inputs = tensors[: len(self.inputs)]
        batch = inputs[0].shape[0]
        name = planned(
            self.text,
            self.sizes,
            self.position_sizes,
            tuple(index(n) for x in inputs for n in x.shape[1:]),  # numbers, also where a compiler has symbols
            batch if is_static(batch) else NOMINAL_BATCH,
            "forward" if self.objective == "training" and not needs_gradient(tensors) else self.objective,
            inputs[0].device.type,
            _lies_channels_first(inputs[0]),
            products_dtype(inputs[0]),
        )
        return getattr(FUNCTIONS, name)

    def __getstate__(self) -> dict[str, Any]:
        """Without the functions, which are made again where they are needed."""
        return {**self.__dict__, "_made": {}}


def needs_gradient(tensors: Sequence[Tensor]) -> bool:
    """Whether a backward pass can follow; only then one is planned."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # any() of a generator takes a time that small layers notice
            if tensor.requires_grad:
                return True
    return False


def _lies_channels_first(x: Tensor) -> bool:
    """Whether a tensor (B, *positions, C) is a view of one that lies in memory as (B, C, *positions)."""
    first, strides = False, x.stride()
    # A compiler with symbolic strides decides at `if`, where it would otherwise pass a symbol on.
    if len(strides) > 2 and strides[-1] > strides[1]:
        first = True
    return first
