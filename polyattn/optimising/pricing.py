"""The price of code: multiply-accumulates, peak bytes and seconds of the operations that torch runs for it.

Code is run on fake tensors, so that only shapes are followed, and each operation that reaches the dispatcher is priced
by the calibrated roofline. The code as it was and the planned code are priced by the same rules, with their copies.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn.planning import Device


@dataclass(frozen=True)
class Price:
    """The price of some code at some sizes.

    Attributes:
        macs: multiply-accumulates, of products of matrices, convolutions, attention and products entry by entry.
        peak_bytes: the most bytes of results held at once, without the arguments.
        seconds: the sum over operations, each at the larger of its arithmetic and its traffic.
        traffic_bytes: bytes read and written by the operations, views aside.
        kept_bytes: bytes of results held for the backward pass, the output aside; 0 without one.
    """

    macs: int = 0
    peak_bytes: int = 0
    seconds: float = 0.0
    traffic_bytes: int = 0
    kept_bytes: int = 0


@dataclass(frozen=True)
class Operation:
    """An operation that torch ran.

    Attributes:
        name: such as "bmm"; the name of `torch.ops.aten`.
        contracts: whether it sums products of two tensors; convolutions with a wide kernel do not count.
        multiplies: whether it multiplies two tensors entry by entry.
        changes: whether it changes a tensor in place.
        random: whether its result is drawn.
        casts: whether it takes floating-point numbers to another width.
        views: whether its result is a view.
    """

    name: str
    contracts: bool = False
    multiplies: bool = False
    changes: bool = False
    random: bool = False
    casts: bool = False
    views: bool = False


FREE = {"_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh", "empty_like", "new_empty", "empty"}
LARGE_KERNELS = {"convolution", "convolution_overrideable", "_convolution"}


@dataclass
class Recorder(TorchDispatchMode):
    """Notes and prices the operations that run while it is entered.

    Args:
        device: the roofline.
        itemsize: bytes of a floating-point number in the code as it will run.
    """

    device: Device
    itemsize: int = 4
    macs: int = 0
    seconds: float = 0.0
    peak: int = 0
    traffic: int = 0
    kept: int = 0
    operations: list[Operation] = field(default_factory=list)
    _alive: int = 0
    _held: dict[int, tuple[int, int]] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    @property
    def price(self) -> Price:
        return Price(self.macs, self.peak, self.seconds, self.traffic, self.kept)

    def know(self, tensors: Sequence[torch.Tensor]) -> None:
        """Leave the memory of arguments out."""
        self._known |= {_storage(t) for t in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        made = [t for t in pytree.tree_leaves(out) if isinstance(t, torch.Tensor)]
        if name in ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "is_contiguous") or not made:
            return out
        macs, arithmetic = self._arithmetic(name, args, given, made)
        self.macs += macs
        if not (func.is_view or name in FREE):
            traffic = sum(map(self._bytes, {id(t): t for t in (*given, *made)}.values()))
            self.traffic += traffic
            self.seconds += max(arithmetic, traffic / self.device.bytes_per_second) + self.device.step_seconds
        self._hold(made)
        wide = name in LARGE_KERNELS and prod(args[1].shape[2:]) > 1
        self.operations.append(
            Operation(
                "wide_convolution" if wide else name,
                bool(arithmetic) and not wide,
                name in ("mul", "pow") and (name == "pow" or sum(t.numel() > 1 for t in given) == 2),
                bool(func._schema.is_mutable),
                torch.Tag.nondeterministic_seeded in func.tags and not _is_sure(name, args, kwargs or {}),
                _casts(given, made),
                func.is_view or name in FREE,
            )
        )
        return out

    def _bytes(self, tensor: torch.Tensor) -> int:
        entries = prod(n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s or n == 0)
        return entries * (self.itemsize if tensor.is_floating_point() else tensor.element_size())

    def _arithmetic(
        self, name: str, args: Any, given: Sequence[torch.Tensor], made: Sequence[torch.Tensor]
    ) -> tuple[int, float]:
        """Return the multiply-accumulates of an operation, and its seconds of arithmetic; 0 if traffic decides."""
        if name in ("mm", "bmm", "addmm", "baddbmm", "addbmm"):
            left, right = given[-2:]
            *batch, m, k = left.shape
            return self._product(prod(batch), (m, k, right.shape[-1]))
        if name in ("mv", "addmv"):
            return given[-2].numel(), given[-2].numel() / self.device.macs_per_second
        if name in LARGE_KERNELS:
            weight, groups = args[1], args[8]
            outside = made[0].numel() // made[0].shape[1]
            inner = prod(weight.shape[1:]) if not args[6] else prod(weight.shape[2:]) * weight.shape[0] // groups
            return self._product(groups, (outside, inner, made[0].shape[1] // groups))
        if "scaled_dot_product" in name and "backward" not in name:
            query, key, value = given[:3]
            *batch, n, d = query.shape
            first = self._product(prod(batch), (n, d, key.shape[-2]))
            second = self._product(prod(batch), (n, key.shape[-2], value.shape[-1]))
            return first[0] + second[0], first[1] + second[1]
        if "scaled_dot_product" in name:
            query, key = given[1:3]
            *batch, n, d = query.shape
            one = self._product(prod(batch), (n, d, key.shape[-2]))
            return 5 * one[0], 5 * one[1]
        if name == "convolution_backward":
            gradient, _, weight = given[:3]
            inner = prod(weight.shape[1:])
            outside = gradient.numel() // gradient.shape[1]
            one = self._product(1, (outside, inner, gradient.shape[1]))
            return 2 * one[0], 2 * one[1]
        return (made[0].numel(), 0.0) if name == "mul" and len(given) == 2 else (0, 0.0)

    def _product(self, count: int, sides: tuple[int, ...]) -> tuple[int, float]:
        macs = count * prod(sides)
        efficiency = prod(s / (s + self.device.tile) for s in sides) or 1.0
        return macs, macs / (self.device.macs_per_second * efficiency)

    def _hold(self, made: Sequence[torch.Tensor]) -> None:
        for tensor in made:
            key = _storage(tensor)
            if key in self._known:
                continue
            if key not in self._held:
                self._held[key] = (0, size := self._bytes(tensor))
                self._alive += size
                self.peak = max(self.peak, self._alive)
            count, size = self._held[key]
            self._held[key] = count + 1, size
            weakref.finalize(tensor, self._release, key)

    def held_beside(self, result: torch.Tensor) -> int:
        """Return the bytes held now, without those of a result."""
        return self._alive - self._held.get(_storage(result), (0, 0))[1]

    def _release(self, key: int) -> None:
        # A view may outlive the tensor that it was taken of, and keeps its memory.
        count, size = self._held[key]
        self._held[key] = count - 1, size
        if count == 1:
            del self._held[key]
            self._alive -= size


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_sure(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether an operation that may draw numbers does not, such as attention without dropout."""
    if "scaled_dot_product" in name:
        return not any(isinstance(a, float) and a > 0 for a in args[3:5]) and not kwargs.get("dropout_p")
    if "dropout" in name:
        return not (len(args) > 2 and args[2]) or not args[1]
    return False


def _casts(given: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> bool:
    before = {t.dtype for t in given if t.is_floating_point()}
    after = {t.dtype for t in made if t.is_floating_point()}
    return bool(before) and bool(after) and before != after


def faked(mode: FakeTensorMode, tensors: Sequence[Any], dtype: torch.dtype | None = None) -> list[Any]:
    """Return fake tensors of the same shapes and strides, in `dtype` where they are floating-point; else the values."""

    def one(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        to = dtype if dtype is not None and t.is_floating_point() else t.dtype
        with mode:
            return torch.empty_strided(tuple(t.shape), t.stride(), dtype=to, device=t.device)

    return [one(t) for t in tensors]


def price(
    function: Callable[..., Any], tensors: Sequence[torch.Tensor], device: Device, training: bool = False
) -> tuple[Price, Any]:
    """Return the price of a function of tensors, and its result of fake tensors.

    Args:
        function: takes the tensors in their order; other tensors that it holds may be real.
        training: whether a backward pass is counted too.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = faked(mode, tensors)
    itemsize = next((t.element_size() for t in fake if t.is_floating_point()), 4)
    recorder = Recorder(device, itemsize)
    recorder.know(fake)
    with mode, torch.set_grad_enabled(training):
        if training:
            fake = [t.requires_grad_() if t.is_floating_point() else t for t in fake]
        with recorder:
            found = function(*fake)
            if training:
                recorder.kept = recorder.held_beside(found)
                wanted = [t for t in fake if t.requires_grad]
                seed = torch.empty_like(found)
                torch.autograd.grad(found, wanted, seed, allow_unused=True)
    return recorder.price, found
