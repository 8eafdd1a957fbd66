"""Run-time support of all kernels: dispatch to Triton, dtypes, precision, memory, and strides."""

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
"""The dtypes of the Triton kernels; other dtypes run the definition in torch."""

FLOAT32 = torch.float32

PRECISIONS = ("", "ieee", "tf32")
"""Precisions of float32 products: "ieee" rounds exactly, "tf32" uses the matrix units with 10-bit mantissas. "" follows
`torch.set_float32_matmul_precision`, where "highest" means ieee."""

_transforms = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]

F = TypeVar("F", bound=Callable[..., Any])


@cache
def has_triton() -> bool:
    """Return whether Triton is installed, without importing it."""
    return find_spec("triton") is not None


def interpreting() -> bool:
    """Return whether kernels run in Triton's interpreter, on CPU tensors.

    TRITON_INTERPRET must be set before the first import of Triton.
    """
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_triton(*tensors: Tensor) -> bool:
    """Return whether these tensors run a Triton kernel; otherwise they run the definition in torch."""
    first = tensors[0]
    # Grids are computed from lengths of at least 1; empty tensors run the definition.
    if first.dtype not in DTYPES or not all(t.numel() for t in tensors) or not has_triton():
        return False
    return first.is_cuda or (first.device.type == "cpu" and interpreting())


def input_precision(dtype: torch.dtype, precision: str) -> str:
    """Return Triton's name of the precision of products."""
    if dtype != torch.float32:
        return "ieee"  # the products of 16-bit numbers are exact in float32
    return precision or ("ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32")


def as_torch(dtype: torch.dtype, precision: str) -> bool:
    """Return whether torch's own products have the requested precision."""
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
    """Return the dtype of sums over positions."""
    return dtype if dtype == torch.float64 else torch.float32


def allocate(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Create uninitialised contiguous memory: a kernel writes every element of its outputs."""
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def allocate_like(x: Tensor) -> Tensor:
    """Create uninitialised memory with a tensor's shape and, if it has no gaps, its layout."""
    return torch.empty_like(x)


def processors(device: torch.device) -> int:
    """Count the multiprocessors of a device, which a launch should fill; the interpreter counts as one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def splits_for(programs: int, rows: int, block: int, device: torch.device) -> int:
    """Choose the number of parts of a sum over rows that fills the device, with at least eight tiles per part."""
    wanted = -(-4 * processors(device) // max(1, programs))
    # More splits fill the device but write more partial sums, to be read and added again.
    return max(1, min(wanted, rows // (8 * block)))


def parts_to_fill(programs: int, most: int, device: torch.device) -> int:
    """Choose the number of parts of each program's work that gives every multiprocessor eight programs."""
    return max(1, min(most, -(-8 * processors(device) // max(1, programs))))


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return autocast's dtype for the device of a tensor; None if autocast is off, or does not know the device."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast the tensors to autocast's dtype if autocast is on.

    Raises:
        SizeError: the tensors have several dtypes.
    """
    dtype = autocast_dtype(tensors[0])
    # Autocast leaves float64 alone, as for torch's own products.
    if dtype is not None and tensors[0].dtype != torch.float64:
        return tuple(t.to(dtype) for t in tensors)
    if any(t.dtype != tensors[0].dtype for t in tensors):
        raise SizeError(f"a kernel takes tensors of one dtype, not {', '.join(str(t.dtype) for t in tensors)}")
    return tensors


def expect(condition: bool, kernel: str, tensors: dict[str, Tensor], wanted: str) -> None:
    """Check the shapes of a kernel's arguments.

    Raises:
        SizeError: the condition does not hold; gives the shapes and the expected ones.
    """
    if not condition:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise SizeError(f"{kernel} takes {wanted}, not {shapes}")


def without_autocast(function: F) -> F:
    """Wrap an operator so that it computes in its arguments' dtypes, without further casts."""

    @wraps(function)
    def wrapped(x: Tensor, *rest: Any) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *rest)

    return wrapped  # pyright: ignore[reportReturnType]


def transformed() -> bool:
    """Return whether a transform of `torch.func` or forward-mode differentiation is active.

    torch has rules for these for its own operators only, so the definition in torch runs instead. Under a compiler the
    operators are kept.
    """
    if torch.compiler.is_compiling():
        return False
    return _transforms() is not None or forward_ad._current_level >= 0


def rows_like(x: Tensor, columns: int) -> Tensor:
    """Create uninitialised memory (..., N, columns) for rows of x (..., N, C), channels first or last as in x."""
    *batch, rows, _ = x.shape
    if x.stride(-2) == 1 and x.stride(-1) != 1:
        return allocate((*batch, columns, rows), x.dtype, x.device).transpose(-2, -1)
    return allocate((*batch, rows, columns), x.dtype, x.device)


WIDEST = 8
"""Largest unit, in elements: 16 bytes of 16-bit numbers."""


def unit(*maps: Tensor) -> int:
    """Return the number of positions of maps (..., N, C) per vector load: a power of two dividing all column strides.

    Triton itself detects multiples of 16 only. The unit is 1 if a map is not channels-first.
    """
    if any(x.stride(-2) != 1 for x in maps):
        return 1
    return gcd(WIDEST, maps[0].shape[-2], *(x.stride(-1) for x in maps))


def in_units(x: Tensor, unit: int) -> tuple[int, ...]:
    """Return the strides of a map (..., N, C), with the channel stride in units."""
    return *x.stride()[:-1], x.stride(-1) // unit


def row_strides(m: Tensor) -> tuple[int, int, int]:
    """Return the strides of (B, K, O), or of one (K, O) shared by the batch."""
    # A batch stride of 0 makes every program read the one matrix, without expanding it.
    return (m.stride(0), m.stride(1), m.stride(2)) if m.dim() == 3 else (0, m.stride(0), m.stride(1))
