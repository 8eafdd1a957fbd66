"""`RingTensor`: a floating-point tensor to the code that gets it, whose entries are elements of a finite field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyattn.errors import ProofError
from polyattn.verifying.ring.size import Size


@dataclass
class State:
    """Memory shared by views: a write through one of them is a write to all.

    Attributes:
        constant: whether all entries are known numbers.
        exponents: whether the entries may stand in an exponential.
        infinite: whether some entries may be -inf.
        size: bounds for the entries.
    """

    constant: bool
    exponents: bool
    infinite: bool
    size: Size


class RingTensor(Tensor):
    """A tensor whose `__torch_dispatch__` computes in a field, under `Ring`.

    Attributes:
        values: residues modulo the field's prime, int64.
        powers, numbers, masked: the other planes, which views share too: residues modulo the order of the field's base,
            float64 values, and where entries are -inf. `exponents`, `reals` and `infinite` say which of them hold.
    """

    values: Tensor
    powers: Tensor | None
    numbers: Tensor | None
    masked: Tensor
    state: State

    @staticmethod
    def __new__(
        cls,
        values: Tensor,
        powers: Tensor | None,
        numbers: Tensor | None,
        dtype: torch.dtype,
        size: Size,
        infinite: Tensor | None = None,
        state: State | None = None,
    ) -> RingTensor:
        """Make a tensor of planes: memory of its own or, where a state is given, a view of another tensor's."""
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=dtype,
            device=values.device,
        )
        made.values, made.powers, made.numbers = values, powers, numbers
        if state is None:
            made.masked = torch.zeros_like(values, dtype=torch.bool)
            if infinite is not None:
                made.masked.copy_(infinite)
            state = State(numbers is not None, powers is not None, infinite is not None, size)
        else:
            assert infinite is not None
            made.masked = infinite
        made.state = state
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    @property
    def exponents(self) -> Tensor | None:
        """Return the entries as exponents; None after an exponential."""
        return self.powers if self.state.exponents else None

    @property
    def reals(self) -> Tensor | None:
        """Return the entries as float64 numbers; None where some depend on unknowns."""
        return self.numbers if self.state.constant else None

    @property
    def infinite(self) -> Tensor | None:
        """Return where entries are -inf; None for nowhere."""
        return self.masked if self.state.infinite and bool(self.masked.any()) else None

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"RingTensor(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ProofError(f"{func} was called on a tensor of a finished check; keep no tensors between calls")
