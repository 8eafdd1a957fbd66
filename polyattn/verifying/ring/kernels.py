"""Triton kernels on elements of a field, in Triton's interpreter.

The interpreter computes on numpy arrays. Floats are words (`words.py`), and the builder's operations on floats compute
modulo the prime, and modulo the order of exponents. Integers, masks, addresses and control flow are the interpreter's
own; floats are read and written through a table of words that knows which addresses belong to tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from polyattn.errors import ProofError
from polyattn.kernels.runtime import has_triton, interpreting
from polyattn.verifying.ring.kernel_values import KernelValues
from polyattn.verifying.ring.ring import KERNELS, Ring
from polyattn.verifying.ring.words import Memory, Words

OPAQUE = {"precise_sqrt": "sqrt", "fabs": "abs"} | {
    name: name for name in ("sqrt", "log", "log2", "cos", "sin", "erf", "floor", "ceil")
}
COMPARISONS = {f"fcmp{kind}{name}" for kind in "OU" for name in ("LT", "GT", "LE", "GE", "EQ", "NE")}
REFUSED = {"fp_to_si", "fp_to_ui", "frem", "clampf", "dot_scaled"}


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
    patch.set(interpreter, "_patch_lang", arithmetic.patched(interpreter))
    patch.set(interpreter, "_validate_np_data_size", lambda *_: True)  # a word is longer than its float
    patch.set(interpreter.GridExecutor, "__call__", arithmetic.launched(interpreter.GridExecutor.__call__))
    # Arguments are on the CPU, in memory that is not to be copied.
    patch.set(interpreter.GridExecutor, "_init_args_hst", lambda _, args, kwargs: (list(args), dict(kwargs)))
    patch.set(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
    for owner, name in ((interpreter.ReduceOps, "sum"), (interpreter.ReduceOps, "min_max"),
                        (interpreter.ScanOps, "cumsum"), (interpreter.ScanOps, "cumprod")):  # fmt: skip
        patch.set(owner, name, arithmetic.along(name, getattr(owner, name)))
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


class _Arithmetic:
    """The builder's operations on floats."""

    def __init__(self, ring: Ring, interpreter: Any):
        self.ring, self.interpreter = ring, interpreter
        self.values = KernelValues(ring)
        self.memory = Memory(ring)
        self.languages: set[int] | None = None

    def patched(self, interpreter: Any) -> Callable[..., Any]:
        """Return the interpreter's patch of `tl`, which a launch needs once and not for each function that it calls."""
        import triton.language as tl

        original = interpreter._patch_lang

        def patch(function: Any) -> Any:
            found = {id(v) for v in function.__globals__.values() if v is tl or v is tl.core}
            if self.languages is not None and found <= self.languages:
                return interpreter._LangPatchScope()
            scope = original(function)
            if self.languages is None:
                self.languages = found
            return scope

        return patch

    def launched(self, launch: Callable[..., None]) -> Callable[..., None]:
        """Return a launch that gives the kernel memory with words, and takes back the written ones."""
        import torch

        def run(executor: Any, *args: Any, **kwargs: Any) -> None:
            before, self.memory, self.languages = self.memory, Memory(self.ring), None
            self.ring.kernels = True
            try:
                with torch._C._DisableTorchDispatch():
                    args = tuple(map(self.memory.holds, args))
                    kwargs = {k: self.memory.holds(v) for k, v in kwargs.items()}
                    self.memory.ready()
                    launch(executor, *args, **kwargs)
                    changed = list(self.memory.take_back())
            finally:
                self.memory, self.languages = before, None
            if any(segment.outside for segment in changed):
                raise ProofError("a kernel of `candidate` writes into a tensor that was made outside of it")
            for segment in changed:
                for view in segment.views:
                    view.state.constant = False
                    view.state.size = view.state.size.join(KERNELS)

        return run

    def numpy_dtype(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def dtype(tt_dtype: Any) -> Any:
            scalar = tt_dtype.scalar if hasattr(tt_dtype, "scalar") else tt_dtype
            if getattr(scalar, "is_floating", bool)() and not hasattr(scalar, "element_ty"):
                return np.dtype(np.uint64)
            return original(tt_dtype)

        return dtype

    def handle(self, words: Words | np.ndarray, dtype: Any) -> Any:
        """Return a handle of words."""
        scalar = dtype.scalar
        if scalar.primitive_bitwidth < 16:
            raise ProofError("`candidate` computes in 8-bit floats, which cannot carry the elements of a ring")
        return self.interpreter.TensorHandle(words.packed() if isinstance(words, Words) else words, scalar)

    @staticmethod
    def words(handle: Any) -> Words:
        return Words.of(np.asarray(handle.data))

    @staticmethod
    def is_float(handle: Any) -> bool:
        scalar = getattr(getattr(handle, "dtype", None), "scalar", None)
        return scalar is not None and not scalar.is_ptr() and scalar.is_floating()

    def methods(self, builder: Any) -> dict[str, Callable[..., Any]]:
        """Return the operations by the builder's names."""
        import triton.language as tl

        values = self.values
        floating = {"fp16": tl.float16, "bf16": tl.bfloat16, "fp32": tl.float32, "fp64": tl.float64}

        def constant(dtype: Any) -> Callable[..., Any]:
            return lambda value: self.handle(values.number(float(value)), dtype)

        def unary(compute: Callable[[Words], Words]) -> Callable[..., Any]:
            return lambda a: self.handle(compute(self.words(a)), a.dtype)

        def binary(compute: Callable[[Words, Words], Words]) -> Callable[..., Any]:
            return lambda a, b, *_: self.handle(compute(self.words(a), self.words(b)), a.dtype)

        def cast(a: Any, dtype: Any, *_: Any) -> Any:
            return self.handle(a.data, dtype)

        def refuse(name: str) -> Callable[..., Any]:
            def refused(*args: Any, **kwargs: Any) -> Any:
                if name == "dot_scaled" or any(self.is_float(a) for a in args):
                    raise ProofError(f"a kernel of `candidate` takes {name} of values, which has no meaning in a ring")
                return getattr(type(builder), f"create_{name}")(builder, *args, **kwargs)

            return refused

        def compare(name: str) -> Callable[..., Any]:
            def compared(a: Any, b: Any) -> Any:
                left, right = self.words(a), self.words(b)
                if name[-2:] not in ("EQ", "NE") or not (left.infinite.all() or right.infinite.all()):
                    raise ProofError(f"a kernel of `candidate` takes {name} of values, which a ring does not order")
                # Unknowns are finite: -inf is only where a mask has put it.
                same = left.infinite & right.infinite
                return self.interpreter.TensorHandle(same if name.endswith("EQ") else ~same, tl.int1)

            return compared

        def bitcast(a: Any, dtype: Any) -> Any:
            if self.is_float(a) != (dtype.scalar.is_floating() and not dtype.scalar.is_ptr()):
                raise ProofError("a kernel of `candidate` reads the bits of a float, which has no meaning in a ring")
            return type(builder).create_bitcast(builder, a, dtype)

        def null(kind: Any) -> Any:
            if kind.scalar.is_floating() and not kind.scalar.is_ptr():
                return self.handle(values.number(0.0), kind)
            return type(builder).get_null_value(builder, kind)

        found: dict[str, Callable[..., Any]] = {f"get_{n}": constant(d) for n, d in floating.items()}
        found |= {
            "get_null_value": null,
            "create_fadd": binary(values.add),
            "create_fsub": binary(lambda a, b: values.add(a, values.negative(b), difference=True)),
            "create_fmul": binary(values.times),
            "create_fneg": unary(lambda a: values.without_sign(values.negative(a))),
            "create_fma": lambda a, b, c: self.handle(
                values.add(values.times(self.words(a), self.words(b)), self.words(c)), c.dtype
            ),
            "create_dot": lambda a, b, c, *_: self.handle(
                values.product(self.words(a), self.words(b), self.words(c)), c.dtype
            ),
            "create_si_to_fp": lambda a, d: self.handle(values.whole(a.data), d),
            "create_ui_to_fp": lambda a, d: self.handle(values.whole(a.data), d),
            "create_bitcast": bitcast,
            "create_exp": unary(values.exponential),
            "create_exp2": unary(values.power_of_two),
            "create_rsqrt": unary(lambda a: values.inverse(values.opaque("sqrt", a))),
            "create_atomic_rmw": self.atomic(builder),
            "create_masked_load": self.load(builder),
            "create_masked_store": self.store(builder),
        }
        found |= dict.fromkeys(("create_fp_ext", "create_fp_trunc", "create_fp_to_fp"), cast)
        found |= dict.fromkeys(("create_fdiv", "create_precise_divf", "create_approx_divf"), binary(values.quotient))
        found |= {f"create_{n}": binary(values.larger(n)) for n in ("maximumf", "maxnumf", "minimumf", "minnumf")}
        found |= {f"create_{n}": unary(lambda a, name=name: values.opaque(name, a)) for n, name in OPAQUE.items()}
        found |= {f"create_{n}": compare(n) for n in COMPARISONS}
        found |= {f"create_{n}": refuse(n) for n in REFUSED}
        return {n: m for n, m in found.items() if hasattr(builder, n)}

    def load(self, builder: Any) -> Callable[..., Any]:
        original = type(builder).create_masked_load

        def masked_load(pointers: Any, mask: Any, other: Any, *rest: Any, **options: Any) -> Any:
            on = np.broadcast_to(mask.data, pointers.data.shape)
            kind = pointers.get_element_ty()
            if kind.is_ptr() or not kind.is_floating():
                self.memory.check_integers(pointers.data[on], "reads")
                return original(builder, pointers, mask, other, *rest, **options)
            words = np.zeros(pointers.data.shape, np.uint64)
            if other is not None:
                words[...] = other.data
            words[on] = self.memory.words[self.memory.index(pointers.data[on], "reads")]
            return self.handle(words, kind)

        return masked_load

    def store(self, builder: Any) -> Callable[..., Any]:
        original = type(builder).create_masked_store

        def masked_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
            on = np.broadcast_to(mask.data, pointers.data.shape)
            if not self.is_float(value):
                self.memory.check_integers(pointers.data[on], "writes")
                return original(builder, pointers, value, mask, *rest)
            places = self.memory.index(pointers.data[on], "writes")
            self.memory.words[places] = np.broadcast_to(value.data, pointers.data.shape)[on]
            return None

        return masked_store

    def atomic(self, builder: Any) -> Callable[..., Any]:
        original = type(builder).create_atomic_rmw

        def rmw(op: Any, pointer: Any, value: Any, mask: Any, *rest: Any) -> Any:
            if not self.is_float(value):
                return original(builder, op, pointer, value, mask, *rest)
            if "ADD" not in str(op):
                raise ProofError("a kernel of `candidate` compares values in memory, which has no meaning in a ring")
            shape = np.broadcast_shapes(value.data.shape, pointer.data.shape, mask.data.shape)
            pointers, on, added = (np.broadcast_to(h.data, shape) for h in (pointer, mask, value))
            old, table = np.zeros(shape, np.uint64), self.memory.words
            for entry in np.ndindex(shape):
                if on[entry]:
                    # One after the other: two lanes may add to one place.
                    place = int(self.memory.index(pointers[entry].reshape(1), "adds to")[0])
                    old[entry] = table[place]
                    both = Words.of(table[place : place + 1]), Words.of(added[entry].reshape(1))
                    table[place] = self.values.add(*both).packed()[0]
            return self.interpreter.TensorHandle(old, value.dtype.scalar)

        return rmw

    def along(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a reduction or a scan."""

        def compute(op: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            first = value[0] if isinstance(value, tuple) else value
            if not self.is_float(first.handle):
                return original(op, value, *args, **kwargs)
            words = self.words(first.handle)
            if name == "cumsum":
                return [op.to_tensor(self.values.scan(words, op.axis).packed(), dtype=first.dtype)]
            if name == "cumprod" or kwargs.get("idx_reduce_op") is not None or len(args) > 1:
                what = "a product" if name == "cumprod" else "the place of a maximum or minimum"
                raise ProofError(f"a kernel of `candidate` takes {what} along an axis of values, "
                                 "which is not followed in a ring")  # fmt: skip
            if name == "sum":
                result = self.values.total(words, op.axis, op.keep_dims)
            else:
                kind = kwargs.get("val_reduce_op") or next(iter(args))
                result = self.values.extreme("amax" if "max" in kind.__name__ else "amin", words, op.axis, op.keep_dims)
            return op.to_tensor(result.packed(), first.dtype)

        return compute


def loaded() -> bool:
    """Return whether Triton was imported without its interpreter, so that kernels cannot be judged."""
    return "triton" in sys.modules and not interpreting()
