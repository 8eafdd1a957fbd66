"""Multiply-accumulates counted while torch runs a graph, as a check of the formulas.

Torch's own `FlopCounterMode` counts matrix products, two FLOPs for each multiply-accumulate. It ignores elementwise
products, so those of two tensors are counted beside it, one multiply-accumulate for each entry of the result. Products
with a plain number, additions, sums, copies and functions such as softmax count zero, as in a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn.language import value_of
from polyattn.lowering import lower, lower_backward, lower_with_kept
from polyattn.planning import Plan
from polyattn.runtime.counting import flop_counter


@dataclass(frozen=True)
class Counted:
    """Multiply-accumulates of one run.

    Attributes:
        matrix: those of matrix products, by torch's `FlopCounterMode`.
        elementwise: those of products of two tensors entry by entry.
    """

    matrix: int
    elementwise: int

    @property
    def macs(self) -> int:
        return self.matrix + self.elementwise

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.matrix + other.matrix, self.elementwise + other.elementwise)


def counted(plan: Plan) -> Counted:
    """Count the multiply-accumulates of a plan's graphs in torch: the forward pass, and a planned backward pass.

    The graphs run on tensors without data (torch's `meta` device), so any sizes can be counted.

    >>> from polyattn import plan
    >>> counted(plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]*s[b]", {"N": 784, "C": 512}, "as_written"))
    Counted(matrix=205520896, elementwise=401408)
    """
    spec = plan.spec
    tensors = [_empty(plan, t, t in spec.inputs) for t in (*spec.inputs, *spec.parameters)]
    if plan.backward is None:
        return run(lambda: lower(plan)(*tensors))[1]
    (output, *kept), forward = run(lambda: lower_with_kept(plan)(*tensors))
    return forward + run(lambda: lower_backward(plan)(torch.empty_like(output), *tensors, *kept))[1]


def run(call: Callable[[], Any]) -> tuple[Any, Counted]:
    """Return the result of a call, and torch's multiply-accumulates for it."""
    with flop_counter() as matrix, _Products() as products:
        result = call()
    # A FLOP counter reports a multiplication and an addition for each multiply-accumulate.
    flops = matrix.get_total_flops()
    return result, Counted(flops // 2, products.entries)


def _empty(plan: Plan, tensor: str, batched: bool) -> Tensor:
    shape = [value_of(atoms, plan.sizes) for atoms in plan.spec.shape(tensor)]
    return torch.empty([plan.batch, *shape] if batched else shape, device="meta")


class _Products(TorchDispatchMode):
    """Counter of the entries of products of two tensors."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        # A scalar factor arrives as a number, or as a tensor in another overload, and costs no product of two tensors.
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mul.Tensor and all(isinstance(a, Tensor) for a in args[:2]):
            self.entries += result.numel()
        return result
