"""What all kernels share at run time: where Triton runs, dtypes, precision, memory, and the shape of operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from importlib.util import find_spec
from math import gcd
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from polyattn.errors import SizeError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the Triton kernels take; other dtypes take the torch path."""

FLOAT32 = torch.float32

PRECISIONS = ("", "ieee", "tf32")
"""How float32 products are computed: exactly rounded, or in the matrix units with 10-bit mantissas. The empty text
follows `torch.set_float32_matmul_precision`: "highest" is ieee."""

_transforms = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]

F = TypeVar("F", bound=Callable[..., Any])


@cache
def has_triton() -> bool:
    """Whether Triton is installed; nothing is imported."""
    return find_spec("triton") is not None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of the CPU.

    The variable has to be set before Triton is first imported.
    """
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_triton(*tensors: Tensor) -> bool:
    """Whether the tensors take a Triton kernel here; otherwise they take the definition in torch."""
    first = tensors[0]
    if first.dtype not in DTYPES or not all(t.numel() for t in tensors) or not has_triton():
        return False
    return first.is_cuda or (first.device.type == "cpu" and interpreting())


def input_precision(dtype: torch.dtype, precision: str) -> str:
    """Triton's name for how products are computed."""
    if dtype != torch.float32:
        return "ieee"  # the products of 16-bit numbers are exact in float32
    return precision or ("ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32")


def as_torch(dtype: torch.dtype, precision: str) -> bool:
    """Whether torch's own products compute as a kernel is asked to."""
    return dtype != torch.float32 or precision == ""


class _ReducedPrecision:
    """Torch's flags for products of 16-bit numbers, which hold for the process, lent to any number of threads at once.

    The first to come sets them and the last to go restores them: were each to restore the flags that it found, one
    that came second would leave them as the first had set them, or change them while another computes.
    """

    def __init__(self) -> None:
        self.lock, self.users, self.before = Lock(), 0, (True, True)

    def forbid(self) -> None:
        flags = torch.backends.cuda.matmul
        with self.lock:
            if not self.users:
                self.before = (
                    flags.allow_bf16_reduced_precision_reduction,
                    flags.allow_fp16_reduced_precision_reduction,
                )
                flags.allow_bf16_reduced_precision_reduction = flags.allow_fp16_reduced_precision_reduction = False
            self.users += 1

    def release(self) -> None:
        flags = torch.backends.cuda.matmul
        with self.lock:
            self.users -= 1
            if not self.users:
                flags.allow_bf16_reduced_precision_reduction, flags.allow_fp16_reduced_precision_reduction = self.before


_reduced = _ReducedPrecision()


@contextmanager
def sums_in_float32() -> Iterator[None]:
    """Add torch's products of 16-bit numbers in 32 bits throughout, as the kernels do; by default torch need not.

    The flags hold for the process: while one thread is inside, products of others add in 32 bits too.
    """
    _reduced.forbid()
    try:
        yield
    finally:
        _reduced.release()


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over positions are taken."""
    return dtype if dtype == torch.float64 else torch.float32


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised contiguous memory: a kernel writes every element of what it allocates."""
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def allocate_like(x: Tensor) -> Tensor:
    """Uninitialised memory of the shape and, where it has no gaps, the layout of a tensor."""
    return torch.empty_like(x)


def processors(device: torch.device) -> int:
    """Multiprocessors of a device, which a launch should fill; the interpreter is one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def splits_for(programs: int, rows: int, block: int, device: torch.device) -> int:
    """Into how many parts to cut a sum over rows so that the device is full: at least eight tiles for each."""
    wanted = -(-4 * processors(device) // max(1, programs))
    return max(1, min(wanted, rows // (8 * block)))


def parts_to_fill(programs: int, most: int, device: torch.device) -> int:
    """Into how many parts to cut the work of each program so that every multiprocessor gets eight."""
    return max(1, min(most, -(-8 * processors(device) // max(1, programs))))


def one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where that is on.

    Raises:
        SizeError: they are of several dtypes.
    """
    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind) and tensors[0].dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        return tuple(t.to(dtype) for t in tensors)
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise SizeError(f"a kernel takes tensors of one dtype, not {', '.join(str(t.dtype) for t in tensors)}")
    return tensors


def expect(condition: bool, kernel: str, tensors: dict[str, Tensor], wanted: str) -> None:
    """Refuse shapes that a kernel is not for, naming them.

    Raises:
        SizeError: the condition does not hold.
    """
    if not condition:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise SizeError(f"{kernel} takes {wanted}, not {shapes}")


def without_autocast(function: F) -> F:
    """Operators get the dtypes that they were given: what they call is not cast again."""

    @wraps(function)
    def wrapped(x: Tensor, *rest: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *rest)

    return wrapped  # pyright: ignore[reportReturnType]


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is under way.

    torch gives its own operators rules for those, and none to others: the definition, made of them, runs instead.
    A compiler sees the operators only.
    """
    if torch.compiler.is_compiling():
        return False
    return _transforms() is not None or forward_ad._current_level >= 0


def rows_like(x: Tensor, columns: int) -> Tensor:
    """Uninitialised memory of shape (..., N, columns) for rows of x (..., N, C), channels first or last as in x."""
    *batch, rows, _ = x.shape
    if x.stride(-2) == 1 and x.stride(-1) != 1:
        return allocate((*batch, columns, rows), x.dtype, x.device).transpose(-2, -1)
    return allocate((*batch, rows, columns), x.dtype, x.device)


WIDEST = 8
"""The most places that a unit has: 16 bytes of 16-bit numbers."""


def unit(*maps: Tensor) -> int:
    """How many positions of maps (..., N, C) may be read at once: a power of two that divides all their columns.

    Triton itself sees multiples of 16 alone. It is 1 where a map does not lie with its channels first.
    """
    if any(x.stride(-2) != 1 for x in maps):
        return 1
    return gcd(WIDEST, maps[0].shape[-2], *(x.stride(-1) for x in maps))


def in_units(x: Tensor, unit: int) -> tuple[int, ...]:
    """The strides of a map (..., N, C), from channel to channel in units."""
    return *x.stride()[:-1], x.stride(-1) // unit


def row_strides(m: Tensor) -> tuple[int, int, int]:
    """The strides of (B, K, O) or of one (K, O) that the whole batch shares."""
    return (m.stride(0), m.stride(1), m.stride(2)) if m.dim() == 3 else (0, m.stride(0), m.stride(1))
