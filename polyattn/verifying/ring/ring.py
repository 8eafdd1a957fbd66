"""`Ring`: run any torch code with entries in a finite field in the place of floats.

A dispatch mode takes every operation that reaches the dispatcher: those that move entries run on the residues as they
are, sums and products run modulo the prime, the rest is decomposed by torch's own table or refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn.errors import ProofError
from polyattn.verifying.ring.field import Field
from polyattn.verifying.ring.planes import MANTISSA, Residues
from polyattn.verifying.ring.size import VARIABLE, Size
from polyattn.verifying.ring.tensor import RingTensor, State

aten = torch.ops.aten

MOVES = frozenset(
    """view _unsafe_view reshape _reshape_alias expand permute t transpose unsqueeze squeeze slice select split
    split_with_sizes unbind as_strided diagonal alias detach detach_ clone contiguous cat stack index index_select
    gather flip roll unfold repeat constant_pad_nd tril triu narrow lift_fresh lift slice_scatter select_scatter
    diagonal_scatter im2col movedim chunk pixel_shuffle pixel_unshuffle channel_shuffle reflection_pad1d
    reflection_pad2d replication_pad2d upsample_nearest2d tile repeat_interleave take_along_dim
    diag_embed""".split()  # noqa: SIM905
)
"""Operations that move entries and leave zeros between them."""

FACTORIES = frozenset(
    """empty zeros ones full eye empty_strided scalar_tensor new_empty new_zeros new_ones new_full new_empty_strided
    empty_like zeros_like ones_like full_like""".split()  # noqa: SIM905
)

FLOATS_ONLY = frozenset(("im2col", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "upsample_nearest2d"))
"""Moves that torch has for floats only: residues below 2^31 pass through float64 unchanged."""

RANDOM = frozenset(
    """rand randn rand_like randn_like bernoulli bernoulli_ native_dropout normal_ uniform_ randint randperm
    multinomial""".split()  # noqa: SIM905
)

COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))


KERNELS = Size(degree=32, bits=128, common=128, divisor=32, divisor_bits=128)
"""Bounds taken for what kernels write, which are not followed inside them."""


class Ring(TorchDispatchMode):
    """The field at hand, and the facts about the operations seen.

    Attributes:
        opaque: functions that were carried as opaque ones, such as "relu" or "amax".
        exponentials: whether an exponential was taken.
        divided_by_zero: whether a kernel divided by 0, perhaps in lanes that it does not store.
        kernels: whether a kernel was launched.
    """

    def __init__(self, field: Field):
        super().__init__()
        # Imported here: the tables' functions are written in terms of this class.
        from polyattn.verifying.ring.functions import OPERATIONS, WRITES

        self.operations, self.writes = OPERATIONS, WRITES
        self.field = field
        self.planes = (Residues(field), Residues(Field(field.order, salt=field.salt)) if field.order else None)
        self.opaque: set[str] = set()
        self.exponentials = False
        self.divided_by_zero = False
        self.kernels = False
        self.generator = torch.Generator().manual_seed(field.salt)

    def garbage(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> RingTensor:
        """Return uninitialised memory: random elements, so that results that were never written show."""
        values = torch.empty_strided(shape, strides, dtype=torch.int64)
        values.copy_(torch.randint(self.field.prime, tuple(shape), generator=self.generator))
        powers = values % self.field.order if self.field.order else None
        return RingTensor(values, powers, None, dtype, Size())

    def variable(self, values: Tensor, powers: Tensor | None, dtype: torch.dtype) -> RingTensor:
        """Return a tensor of unknowns, from its residues modulo both primes."""
        return RingTensor(values, powers, None, dtype, VARIABLE)

    def lift(self, tensor: Tensor, dtype: torch.dtype | None = None) -> RingTensor:
        """Return a plain tensor of numbers as a tensor of constants."""
        infinite = tensor == -torch.inf
        infinite = infinite if bool(infinite.any()) else None
        if tensor.is_floating_point() and not bool((tensor.isfinite() | (tensor == -torch.inf)).all()):
            raise ProofError("a constant tensor has entries that are nan or inf, which have no meaning in a ring")
        first, second = self.planes
        dtype = dtype or (tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype())
        bits = MANTISSA.get(tensor.dtype, 53)
        size = Size.floats((v for v in tensor.detach().unique().tolist() if v != -torch.inf), bits)
        return RingTensor(
            first.lift(tensor), second.lift(tensor) if second else None, tensor.detach().double(), dtype, size, infinite
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        namespace = func._schema.name.split("::")[0]
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        carried = [t for t in tensors if isinstance(t, RingTensor)]
        if not carried:
            return self._plain(func, name, args, kwargs)
        if namespace != "aten":
            return self._custom(func, args, kwargs)
        if name in RANDOM:
            raise ProofError(f"`candidate` calls {name}, which is random; check it in evaluation mode")
        if "out" in kwargs:
            return self._out(func, args, kwargs)
        if func._schema.is_mutable:
            return self._in_place(func, name, args, kwargs)
        if "max_pool" in name:  # torch's own decomposition compares values
            raise ProofError(f"`candidate` calls {name}, which compares values, and a ring does not order them")
        if name in self.operations:
            return self.operations[name](self, *args, **kwargs)
        if name in FACTORIES:
            return self._factory(func, args, kwargs)
        if name in MOVES:
            return self.moved(func, name, args, kwargs)
        if name in COMPARISONS:
            return self._compared(func, name, args, kwargs)
        return self._decomposed(func, name, args, kwargs)

    # Kinds of operations

    def _plain(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operation on plain tensors; memory for floats is made as ring tensors, since code writes to it."""
        if name in RANDOM and not func._schema.name.startswith("aten::randperm"):
            raise ProofError(f"`candidate` calls {name}, which is random; check it in evaluation mode")
        result = func(*args, **{**kwargs, "device": "cpu"} if "device" in kwargs else kwargs)
        if name in FACTORIES and isinstance(result, Tensor) and result.is_floating_point():
            if "empty" in name:
                return self.garbage(result.shape, result.stride(), result.dtype)
            return self.lift(result)
        return result

    def _factory(self, func: Any, args: Any, kwargs: Any) -> Any:
        like = args[0]
        dtype = kwargs.pop("dtype", None) or like.dtype
        for option in ("device", "layout", "pin_memory"):
            kwargs.pop(option, None)
        real = torch.empty_strided(like.shape, like.stride(), dtype=dtype)
        made = func(real, *args[1:], **kwargs)
        if not dtype.is_floating_point:
            return made
        if "empty" in func._schema.name:
            return self.garbage(made.shape, made.stride(), dtype)
        return self.lift(made, dtype)

    def _custom(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a custom operator's own Python code."""
        from torch._library.custom_ops import OPDEFS

        defined = OPDEFS.get(func._schema.name)
        if defined is None:
            raise ProofError(f"`candidate` calls the custom operator {func._schema.name}, whose code is not known")
        body = defined._backend_fns.get("cpu") or defined._init_fn
        with self:
            return body(*args, **kwargs)

    def _decomposed(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        from torch._decomp import decomposition_table

        if func in decomposition_table:
            with self:
                return decomposition_table[func](*args, **kwargs)
        if func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        raise ProofError(f"`candidate` calls {name}, which has no meaning in a ring")

    def moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run an operation that moves entries on every plane."""
        kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "pin_memory")}
        flat, spec = pytree.tree_flatten((args, kwargs))
        flat = [self.carried(a) if isinstance(a, Tensor) and a.is_floating_point() else a for a in flat]
        carried = [a for a in flat if isinstance(a, RingTensor)]
        if any(not a.is_floating_point() for a in carried):
            raise ProofError("`candidate` indexes by a place that depends on values, which a ring does not order")

        def residues(tensor: Tensor | None) -> Tensor | None:
            return tensor.double() if tensor is not None and name in FLOATS_ONLY else tensor

        def run(of: Callable[[RingTensor], Tensor | None]) -> Any:
            parts = [of(a) if isinstance(a, RingTensor) else a for a in flat]
            if any(p is None for p, a in zip(parts, flat, strict=True) if isinstance(a, RingTensor)):
                return None
            a, k = pytree.tree_unflatten(parts, spec)
            return func(*a, **k)

        values, powers = run(lambda a: residues(a.values)), run(lambda a: residues(a.powers))
        if name in FLOATS_ONLY:
            values, powers = values.long(), None if powers is None else powers.long()
        numbers, masked = run(lambda a: a.numbers), run(lambda a: a.masked)
        if len(carried) == 1:
            state = carried[0].state
        else:
            size = carried[0].state.size
            for other in carried[1:]:
                size = size.join(other.state.size)
            state = State(
                all(a.state.constant for a in carried),
                all(a.state.exponents for a in carried),
                any(a.state.infinite for a in carried),
                size,
            )
        dtype = _promoted(carried)

        def wrap(v: Any, *rest: Any) -> Any:
            if not isinstance(v, Tensor):
                columns = [r if r is not None else [None] * len(v) for r in rest]
                return type(v)(wrap(*entry) for entry in zip(v, *columns, strict=True))
            return RingTensor(v, rest[0], rest[1], dtype, state.size, rest[2], state)

        return wrap(values, powers, numbers, masked)

    def _compared(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in ("eq", "ne") and isinstance(args[0], RingTensor) and args[1] == -torch.inf:
            # Unknowns are finite: -inf is only where a mask has put it.
            return args[0].masked.clone() if name == "eq" else ~args[0].masked
        reals = [a.reals if isinstance(a, RingTensor) else a for a in args]
        if any(r is None for r in reals):
            raise ProofError(f"`candidate` compares values ({name}), which a ring does not order")
        return func(*reals, **kwargs)

    def _in_place(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        target = args[0]
        if not isinstance(target, RingTensor):
            raise ProofError(f"`candidate` writes results ({name}) into a tensor that was made outside of it")
        if name in self.writes:
            result = self.writes[name](self, *args, **kwargs)
        else:
            packet = getattr(aten, name.removesuffix("_"), None)
            overload = getattr(packet, func._overloadname, None) if packet else None
            if overload is None:
                raise ProofError(f"`candidate` calls {name}, which has no meaning in a ring")
            with self:
                result = overload(*args, **kwargs)
        return self.write(target, result)

    def _out(self, func: Any, args: Any, kwargs: Any) -> Any:
        target = kwargs.pop("out")
        name = "default" if func._overloadname == "out" else func._overloadname.removesuffix("_out")
        overload = getattr(func.overloadpacket, name, None)
        if overload is None or not isinstance(target, RingTensor):
            raise ProofError(f"`candidate` calls {func._schema.name} with out=, which cannot be followed")
        with self:
            result = overload(*args, **kwargs)
        return self.write(target, result)

    def write(self, target: RingTensor, result: Any) -> RingTensor:
        """Write a result into a tensor's memory, which its views share."""
        if not isinstance(result, RingTensor):
            result = self.lift(torch.as_tensor(result, dtype=torch.float64))
        target.values.copy_(result.values)
        state, source = target.state, result.state
        # What a state says holds for all views, so it only becomes weaker.
        for name, flag in (("powers", "exponents"), ("numbers", "constant")):
            mine, theirs = getattr(target, name), getattr(result, name)
            if getattr(state, flag) and getattr(source, flag) and theirs is not None and mine is not None:
                mine.copy_(theirs)
            else:
                setattr(state, flag, False)
        target.masked.copy_(result.masked)
        state.infinite |= source.infinite
        state.size = state.size.join(source.size)
        return target

    # For the table of operations

    def carried(self, value: Any) -> Any:
        """Return an operand as a ring tensor or a Python number."""
        if isinstance(value, RingTensor) or not isinstance(value, Tensor):
            return value
        return self.lift(value)

    def compute(
        self,
        operands: Sequence[Any],
        compute: Callable[..., Tensor],
        size: Size,
        real: Callable[..., Tensor] | None = None,
        infinite: Tensor | None = None,
    ) -> RingTensor:
        """Return a result from its planes.

        Args:
            operands: ring tensors, and numbers to be lifted.
            compute: the operation, of a plane and the operands in it.
            real: the operation on float64 tensors, where all operands are constants.
            infinite: where entries of the result are -inf.
        """
        ring = [o for o in operands if isinstance(o, RingTensor)]

        def on(plane: Residues, part: Callable[[RingTensor], Tensor | None]) -> Tensor:
            lifted = [part(o) if isinstance(o, RingTensor) else plane.number(o) for o in operands]
            return compute(plane, *lifted)

        first, second = self.planes
        values = on(first, lambda o: o.values)
        powers = None
        if second is not None and all(o.exponents is not None for o in ring):
            powers = on(second, lambda o: o.exponents)
        numbers = None
        if real is not None and all(o.reals is not None for o in ring):
            numbers = real(*(o.reals if isinstance(o, RingTensor) else o for o in operands))
        return RingTensor(values, powers, numbers, _promoted(ring), size, infinite)

    def refuse_infinite(self, name: str, *operands: Any) -> None:
        """Raise ProofError if an operand has entries that are -inf."""
        if any(isinstance(o, RingTensor) and o.infinite is not None for o in operands):
            raise ProofError(f"`candidate` takes {name} of -inf, which has a meaning only in softmax and exp")


def _promoted(carried: Iterable[RingTensor]) -> torch.dtype:
    dtype = None
    for tensor in carried:
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    assert dtype is not None
    return dtype
