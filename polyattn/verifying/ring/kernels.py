"""Triton kernels on elements of a field, in Triton's interpreter.

The interpreter computes on numpy arrays and real memory. Memory of a float holds a residue in the bits of that float,
the arrays are of unsigned integers of the same width, and the builder's operations on floats compute modulo the prime.
Pointers, masks, integers and control flow are the interpreter's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import ProofError
from polyattn.kernels.runtime import has_triton, interpreting
from polyattn.verifying.ring.ring import KERNELS, Ring
from polyattn.verifying.ring.tensor import RingTensor

CARRIERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
"""Integers of the same width as the floats in whose memory they are kept."""

MASKS = {torch.int64: -1, torch.int32: 2**32 - 1, torch.int16: 2**16 - 1}

OPAQUE = {"precise_sqrt": "sqrt", "fabs": "abs"} | {
    name: name for name in ("sqrt", "log", "log2", "cos", "sin", "erf", "floor", "ceil")
}
REFUSED = """exp exp2 fp_to_si fp_to_ui fcmpOLT fcmpOGT fcmpOLE fcmpOGE fcmpOEQ fcmpONE fcmpULT fcmpUGT fcmpULE fcmpUGE
fcmpUEQ fcmpUNE frem clampf dot_scaled""".split()  # noqa: SIM905


class NeedsNarrow(Exception):
    """A kernel keeps 16-bit floats, and the prime has more bits: the check starts again with a smaller one."""


@contextmanager
def kernels_in(ring: Ring) -> Iterator[None]:
    """Run Triton kernels that are launched inside on the ring's elements, where Triton is interpreted."""
    if not (has_triton() and interpreting()):
        yield
        return
    from triton.runtime import interpreter

    builder, patch = interpreter.interpreter_builder, _Patch()
    arithmetic = _Arithmetic(ring, interpreter)
    patch.set(interpreter, "_get_np_dtype", arithmetic.numpy_dtype(interpreter._get_np_dtype))
    patch.set(interpreter.GridExecutor, "__call__", _launched(ring, interpreter.GridExecutor.__call__))
    patch.set(interpreter.ReduceOps, "sum", arithmetic.reduced(interpreter.ReduceOps.sum))
    patch.set(interpreter.ReduceOps, "min_max", arithmetic.unordered(interpreter.ReduceOps.min_max))
    patch.set(interpreter.ScanOps, "cumsum", arithmetic.scanned(interpreter.ScanOps.cumsum))
    patch.set(interpreter.ScanOps, "cumprod", arithmetic.unordered(interpreter.ScanOps.cumprod))
    for name, method in arithmetic.methods(builder).items():
        patch.set(builder, name, method)
    try:
        yield
    finally:
        patch.restore()


class _Patch:
    """Attributes set for a while."""

    def __init__(self) -> None:
        self.before: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        self.before.append((owner, name, vars(owner).get(name, self)))
        setattr(owner, name, value)

    def restore(self) -> None:
        for owner, name, value in reversed(self.before):
            delattr(owner, name) if value is self else setattr(owner, name, value)


def _launched(ring: Ring, launch: Callable[..., None]) -> Callable[..., None]:
    """Return a launch that gives the kernel memory with residues, and takes back what it wrote."""

    def run(executor: Any, *args: Any, **kwargs: Any) -> None:
        memory: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}
        written: list[tuple[RingTensor, tuple[int, torch.dtype]]] = []
        outside: set[int] = set()

        def encode(value: Any) -> Any:
            if isinstance(value, Tensor) and value.is_floating_point() and not isinstance(value, RingTensor):
                value = ring.lift(value)
                outside.add(value.values.untyped_storage().data_ptr())
            if not isinstance(value, RingTensor):
                return value
            ring.refuse_infinite("a kernel", value)
            carrier = CARRIERS[value.dtype]
            if carrier == torch.int16 and ring.field.prime >= 2**16:
                raise NeedsNarrow
            storage = value.values.untyped_storage()
            key = (storage.data_ptr(), value.dtype)
            if key not in memory:
                whole = torch.empty(0, dtype=torch.int64).set_(storage)
                # Tensors that share memory share it in the kernel, too.
                encoded = whole.to(carrier).view(value.dtype)
                memory[key] = (whole, encoded, encoded.view(carrier).clone())
            written.append((value, key))
            return torch.as_strided(memory[key][1], value.shape, value.stride(), value.values.storage_offset())

        ring.kernels = True
        with torch._C._DisableTorchDispatch():
            launch(executor, *map(encode, args), **{k: encode(v) for k, v in kwargs.items()})
            for whole, encoded, before in memory.values():
                after = encoded.view(before.dtype)
                if not torch.equal(after, before):
                    # Residues of 16 bits may look negative as integers of that width.
                    whole.copy_(
                        after.long() & (2 ** (8 * after.element_size()) - 1) if after.element_size() < 8 else after
                    )
            changed = {k for k, (_, e, b) in memory.items() if not torch.equal(e.view(b.dtype), b)}
        if any(pointer in outside for pointer, _ in changed):
            raise ProofError("a kernel of `candidate` writes into a tensor that was made outside of it")
        for tensor, key in written:
            if key in changed:
                tensor.state.constant = tensor.state.exponents = False
                tensor.state.size = tensor.state.size.join(KERNELS)

    return run


class _Arithmetic:
    """The builder's operations on floats, modulo the prime."""

    def __init__(self, ring: Ring, interpreter: Any):
        self.ring, self.plane, self.interpreter = ring, ring.planes[0], interpreter
        self.prime = ring.field.prime

    def numpy_dtype(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def dtype(tt_dtype: Any) -> Any:
            scalar = tt_dtype.scalar if hasattr(tt_dtype, "scalar") else tt_dtype
            if getattr(scalar, "is_floating", bool)() and not hasattr(scalar, "element_ty"):
                return np.dtype(f"uint{scalar.primitive_bitwidth}")
            return original(tt_dtype)

        return dtype

    def handle(self, values: Any, dtype: Any) -> Any:
        """Return a handle of residues, an array of the integers that carry them."""
        scalar = dtype.scalar
        if scalar.primitive_bitwidth < 16:
            raise ProofError("`candidate` computes in 8-bit floats, which cannot carry the elements of a ring")
        if scalar.primitive_bitwidth == 16 and self.prime >= 2**16:
            raise NeedsNarrow
        values = np.asarray(values).astype(f"uint{scalar.primitive_bitwidth}")
        return self.interpreter.TensorHandle(values, scalar)

    def number(self, value: float) -> int:
        return self.plane.number(float(value))

    @staticmethod
    def residues(handle: Any) -> np.ndarray:
        return handle.data.astype(np.int64)

    def methods(self, builder: Any) -> dict[str, Callable[..., Any]]:
        """Return the operations by the builder's names."""
        import triton.language as tl

        p = self.prime
        floating = {"fp16": tl.float16, "bf16": tl.bfloat16, "fp32": tl.float32, "fp64": tl.float64}

        def constant(dtype: Any) -> Callable[..., Any]:
            return lambda value: self.handle([self.number(value)], dtype)

        def binary(compute: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., Any]:
            return lambda a, b: self.handle(compute(self.residues(a), self.residues(b)), a.dtype)

        def cast(a: Any, dtype: Any, *_: Any) -> Any:
            return self.handle(a.data, dtype)

        def whole(a: Any, dtype: Any) -> Any:
            return self.handle(a.data.astype(np.int64) % p, dtype)

        def opaque(name: str) -> Callable[..., Any]:
            return lambda a: self.handle(self.opaque(name, self.residues(a)), a.dtype)

        def refuse(name: str) -> Callable[..., Any]:
            def refused(*args: Any, **kwargs: Any) -> Any:
                if name == "dot_scaled" or any(self.is_float(a) for a in args):
                    raise ProofError(f"a kernel of `candidate` takes {name} of values, which has no meaning in a ring")
                return getattr(type(builder), f"create_{name}")(builder, *args, **kwargs)

            return refused

        def bitcast(a: Any, dtype: Any) -> Any:
            if self.is_float(a) != (dtype.scalar.is_floating() and not dtype.scalar.is_ptr()):
                raise ProofError("a kernel of `candidate` reads the bits of a float, which has no meaning in a ring")
            return type(builder).create_bitcast(builder, a, dtype)

        def dot(a: Any, b: Any, total: Any, *_: Any, **__: Any) -> Any:
            left, right = (torch.from_numpy(self.residues(x)) for x in (a, b))
            product = self.plane.bilinear(torch.matmul, left, right, left.shape[-1]).numpy()
            return self.handle((product + self.residues(total)) % p, total.dtype)

        def fma(a: Any, b: Any, c: Any) -> Any:
            return self.handle((self.residues(a) * self.residues(b) + self.residues(c)) % p, c.dtype)

        found: dict[str, Callable[..., Any]] = {f"get_{n}": constant(d) for n, d in floating.items()}
        found |= {
            "create_fadd": binary(lambda a, b: (a + b) % p),
            "create_fsub": binary(lambda a, b: (a - b) % p),
            "create_fmul": binary(lambda a, b: a * b % p),
            "create_fneg": lambda a: self.handle(-self.residues(a) % p, a.dtype),
            "create_fma": fma,
            "create_dot": dot,
            "create_si_to_fp": whole,
            "create_ui_to_fp": whole,
            "create_bitcast": bitcast,
            "create_rsqrt": lambda a: self.handle(self.inverse(self.opaque("sqrt", self.residues(a))), a.dtype),
            "create_atomic_rmw": self.atomic(builder),
        }
        found |= dict.fromkeys(("create_fp_ext", "create_fp_trunc", "create_fp_to_fp"), cast)
        found |= dict.fromkeys(
            ("create_fdiv", "create_precise_divf", "create_approx_divf"), binary(lambda a, b: a * self.inverse(b) % p)
        )
        found |= {f"create_{n}": self.larger(n) for n in ("maximumf", "maxnumf", "minimumf", "minnumf")}
        found |= {f"create_{n}": opaque(name) for n, name in OPAQUE.items()}
        found |= {f"create_{n}": refuse(n) for n in REFUSED}
        return {n: m for n, m in found.items() if hasattr(builder, n)}

    @staticmethod
    def is_float(handle: Any) -> bool:
        scalar = getattr(getattr(handle, "dtype", None), "scalar", None)
        return scalar is not None and not scalar.is_ptr() and scalar.is_floating()

    def inverse(self, values: np.ndarray) -> np.ndarray:
        # Lanes that a mask leaves out may hold 0; a quotient by 0 is anything, and shows if it is stored.
        zero = values == 0
        self.ring.divided_by_zero |= bool(zero.any())
        tensor = torch.from_numpy(np.where(zero, self.ring.field.salt % self.prime, values))
        return self.plane.inverse(tensor).numpy()

    def opaque(self, name: str, values: np.ndarray) -> np.ndarray:
        self.ring.opaque.add(name)
        return self.plane.opaque(name, torch.from_numpy(values)).numpy()

    def larger(self, name: str) -> Callable[..., Any]:
        kind = "maximum" if "max" in name else "minimum"

        def compute(a: Any, b: Any, *_: Any) -> Any:
            left, right = self.residues(a), self.residues(b)
            for value, other in ((left, right), (right, left)):
                if kind == "maximum" and not other.any():
                    return self.handle(self.opaque("relu", value), a.dtype)
            both = (self.opaque(kind, left) + self.opaque(kind, right)) % self.prime
            return self.handle(self.opaque(kind, both), a.dtype)

        return compute

    def atomic(self, builder: Any) -> Callable[..., Any]:
        original = type(builder).create_atomic_rmw

        def rmw(op: Any, pointer: Any, value: Any, mask: Any, *rest: Any) -> Any:
            if not self.is_float(value):
                return original(builder, op, pointer, value, mask, *rest)
            if "ADD" not in str(op):
                raise ProofError("a kernel of `candidate` compares values in memory, which has no meaning in a ring")
            library, before = self.interpreter._interpreter, np.zeros_like(value.data)
            shape = value.data.shape
            pointers, masks = np.broadcast_to(pointer.data, shape), np.broadcast_to(mask.data, shape)
            for entry in np.ndindex(shape):
                # One after the other: two lanes may add to one place.
                here, on = np.array([pointers[entry]]), np.array([masks[entry]])
                old = library.load(here, on, np.zeros(1, value.data.dtype), value.data.dtype)
                new = (old.astype(np.int64) + int(value.data[entry])) % self.prime
                library.store(here, new.astype(value.data.dtype), on)
                before[entry] = old[0]
            return self.interpreter.TensorHandle(before, value.dtype.scalar)

        return rmw

    def reduced(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def total(op: Any, value: Any) -> Any:
            if not self.is_float(value.handle):
                return original(op, value)
            result = self.residues(value.handle).sum(axis=op.axis, keepdims=op.keep_dims) % self.prime
            return op.to_tensor(result, value.dtype)

        return total

    def scanned(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def total(op: Any, value: Any) -> Any:
            if not self.is_float(value.handle):
                return original(op, value)
            result = self.residues(value.handle).cumsum(axis=op.axis) % self.prime
            return [op.to_tensor(result, dtype=value.dtype)]

        return total

    def unordered(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def compute(op: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            first = value[0] if isinstance(value, tuple) else value
            if self.is_float(first.handle):
                raise ProofError("a kernel of `candidate` takes a maximum, minimum or product along an axis of values, "
                                 "which is not followed in a ring")  # fmt: skip
            return original(op, value, *args, **kwargs)

        return compute


def loaded() -> bool:
    """Return whether Triton was imported without its interpreter, so that kernels cannot be judged."""
    return "triton" in sys.modules and not interpreting()
