"""One image of all entries: residues modulo a prime, or the numbers themselves where they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyattn.verifying.ring.field import Field

MANTISSA = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


class Residues:
    """Arithmetic of residues on int64 tensors; Python numbers and plain tensors are lifted."""

    def __init__(self, field: Field):
        self.field = field

    def number(self, value: float | int | bool) -> int:
        return self.field.rational(int(value)) if isinstance(value, int | bool) else self.field.number(value)

    def lift(self, tensor: Tensor) -> Tensor:
        """Return a plain tensor's residues; entries are the simplest rationals that round to them in its dtype."""
        if not tensor.is_floating_point():
            return tensor.long() % self.field.prime
        values, places = torch.unique(tensor.detach(), return_inverse=True)
        bits = MANTISSA[tensor.dtype]
        numbers = [0 if v == -torch.inf else self.field.number(v, bits) for v in values.double().tolist()]
        return torch.tensor(numbers, dtype=torch.int64)[places]

    def add(self, a: Any, b: Any) -> Any:
        return (a + b) % self.field.prime

    def times(self, a: Any, b: Any) -> Any:
        return a * b % self.field.prime

    def inverse(self, a: Tensor) -> Tensor:
        return self.field.inverse(a)

    def power(self, a: Tensor, exponent: int) -> Tensor:
        return self.field.power(a, exponent)

    def bilinear(self, product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, terms: int) -> Tensor:
        return self.field.bilinear(product, a, b, terms)

    def sum(self, a: Tensor, dims: list[int], keepdim: bool) -> Tensor:
        # Fewer than 2^32 residues below 2^31 fit into 63 bits.
        return (a.sum(dims, keepdim=keepdim) if dims else a.clone()) % self.field.prime

    def cumsum(self, a: Tensor, dim: int) -> Tensor:
        return a.cumsum(dim) % self.field.prime

    def opaque(self, name: str, a: Tensor) -> Tensor:
        return self.field.opaque(name, a)

    def constant(self, shape: tuple[int, ...], value: float | int) -> Tensor:
        return torch.full(shape, self.number(value), dtype=torch.int64)
