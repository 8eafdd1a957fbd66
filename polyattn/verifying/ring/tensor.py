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
    """What views of one memory share: a write through one of them is a write to all.

    Attributes:
        constant: whether all entries are known numbers.
        exponents: whether the entries may stand in an exponential.
        size: bounds for the entries.
    """

    constant: bool
    exponents: bool
    size: Size


class RingTensor(Tensor):
    """A tensor whose `__torch_dispatch__` computes in a field, under `Ring`.

    Attributes:
        values: residues modulo the field's prime, int64.
        exponents: the same entries modulo the order of the field's base, for exponentials; None after one.
        reals: float64 values, where all entries are known numbers.
        infinite: where entries are -inf; None for nowhere.
    """

    values: Tensor
    powers: Tensor | None
    numbers: Tensor | None
    infinite: Tensor | None
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
        made = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=dtype,
            device=values.device,
        )
        made.values, made.powers, made.numbers, made.infinite = values, powers, numbers, infinite
        made.state = state or State(numbers is not None, powers is not None, size)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    @property
    def exponents(self) -> Tensor | None:
        return self.powers if self.state.exponents else None

    @property
    def reals(self) -> Tensor | None:
        return self.numbers if self.state.constant else None

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"RingTensor(shape={tuple(self.shape)}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ProofError(f"{func} was called on a tensor of a finished check; keep no tensors between calls")
