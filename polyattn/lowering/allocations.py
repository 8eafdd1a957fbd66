"""The memory and the products of lowered graphs: counted while they run on tensors without data, as torch runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polyattn.language import value_of
from polyattn.lowering.graphs import lower, shared
from polyattn.lowering.multiplying import macs_of
from polyattn.lowering.training import training_function
from polyattn.planning import Device, Plan
from polyattn.planning.chunked_plan import ChunkedPlan
from polyattn.planning.memory import Memory

aten = torch.ops.aten

SCALAR = 12
"""Bytes of a number as an operand of a tensor, while the operation runs: in float64, and in the tensor's dtype."""


class Meter(TorchDispatchMode):
    """A count of the bytes of storages made within it, while they live, and of the products.

    Attributes:
        now: bytes at present.
        most: the most bytes at once.
        macs: multiply-accumulates.
        counted: whether no operation was a kernel of polyattn's own, whose products are inside.
    """

    def __init__(self, given: Iterable[Tensor] = ()):
        """Start at 0 bytes; storages of tensors given are not counted."""
        super().__init__()
        self.now = self.most = self.macs = 0
        self.counted = True
        self.paused = False
        self.sizes = {t.untyped_storage()._cdata: 0 for t in given}
        self.storages: list[Any] = [t.untyped_storage() for t in given]  # so that no new one gets their addresses
        self.watched: dict[int, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.macs += macs_of(func, args, kwargs or {}, result)
        self.counted = self.counted and func.namespace != "polyattn"
        if not self.paused:
            self.add(result)
            self.most = max(self.most, self.now + _inside(func, args, kwargs or {}, result))
        return result

    def add(self, result: object) -> None:
        """Count the storages of tensors that are not known yet."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes:
                    self.sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.watched[key] = ref(storage, partial(self._freed, key))
        self.most = max(self.most, self.now)

    def _freed(self, key: int, _: object) -> None:
        self.watched.pop(key)
        self.now -= self.sizes.pop(key)

    def bytes_of(self, tensors: Iterable[Tensor]) -> int:
        """Return the bytes of the distinct storages of tensors, those given aside."""
        return sum(self.sizes[k] for k in {t.untyped_storage()._cdata for t in tensors})


def _inside(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the bytes that an operation allocates beside its result on the CPU, while it runs."""
    packet = func.overloadpacket
    if packet in (aten._softmax, aten._softmax_backward_data):  # which read contiguous tensors
        return sum(_bytes(a) for a in args if isinstance(a, Tensor) and not a.is_contiguous())
    if packet is aten.bmm:  # one matrix at a time
        return max(0 if 1 in a.stride()[1:] else _bytes(a) // max(1, a.shape[0]) for a in args[:2])
    if packet in (aten.sum, aten.mean):
        dtype = kwargs.get("dtype") or result.dtype
        return SCALAR * (packet is aten.mean) + (args[0].numel() * dtype.itemsize if dtype != args[0].dtype else 0)
    if func._overloadname in ("Tensor", "Scalar") and isinstance(result, Tensor):
        operands = [a for a in args[:2] if isinstance(a, Tensor)]
        dtype = torch.result_type(*args[:2]) if len(args) > 1 else result.dtype
        cast = sum(a.numel() * dtype.itemsize for a in operands if a.dtype != dtype)
        return cast + SCALAR * any(isinstance(a, int | float) for a in args[:2])
    return 0


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize


class _Fused(TorchFunctionMode):
    """Torch's fused attention in the place of its definition, which runs for tensors without data."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args
        options = dict(kwargs or {})
        mask = options.get("attn_mask")
        if mask is not None and mask.requires_grad and torch.is_grad_enabled():
            return func(*args, **options)  # torch has no fused gradient of a mask
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        result = fused(q, k, v, attn_mask=mask, is_causal=options.get("is_causal", False), scale=options.get("scale"))
        buffer = torch.empty(attention_buffer(q.shape[2], k.shape[2], v.shape[3]), device="meta")
        del buffer
        return result[0]


def attention_buffer(queries: int, keys: int, width: int) -> int:
    """Return the float32 entries that torch's fused attention needs beside its results on the CPU.

    Source: `cpu_flash_attention` in aten/src/ATen/native/cpu/FlashAttentionKernel.cpp.
    """
    rows = min(queries, 256 if queries >= 768 else 64 if queries >= 192 else 32)
    return torch.get_num_threads() * rows * (min(keys, 512) + 2 + width)


class _Steps(fx.Interpreter):
    """A graph's nodes one by one; values are freed as in its code.

    A kernel's results alone are allocated; its products are those of its definition in torch, or of its steps.
    """

    def __init__(self, module: fx.GraphModule, meter: Meter):
        super().__init__(module)
        self.meter = meter

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = getattr(target, "__module__", "") or ""
        if not module.startswith("polyattn.kernels.") or module.startswith("polyattn.kernels.attention"):
            return super().call_function(target, args, kwargs)
        self.meter.paused = True
        try:
            result = super().call_function(target, args, kwargs)
        finally:
            self.meter.paused = False
        self.meter.add(result)
        return result


@lru_cache(maxsize=4096)
def memory_of(
    plan: Plan, channels_first: bool, kernels: str | tuple[str, ...], device: Device, training: bool = False
) -> Memory:
    """Return the memory of a plan's graphs as torch allocates it, in float32, and their products.

    Args:
        plan, channels_first, kernels, device: see `lower`.
        training: whether autograd's backward pass is counted where none is planned.
    """
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device}
    # Functions of the user's own are not known to a plan; each makes a tensor of its argument's shape.
    options["functions"] = dict.fromkeys(plan.spec.functions, torch.sigmoid)
    given = [_empty(plan, t, channels_first) for t in (*plan.spec.inputs, *plan.spec.parameters)]
    meter = Meter(given)
    if plan.backward is None:
        graph = shared(plan, "forward", **options)
        if training:
            made = _with_autograd(partial(_Steps(graph, meter).run, *given), given, meter)
            return made if meter.counted else replace(made, macs=plan.macs, backward_macs=plan.backward_macs)
        _run(graph, given, meter)
        return Memory(meter.most, macs=meter.macs if meter.counted else plan.macs)
    output, *kept = _run(shared(plan, "kept", **options), given, meter)
    held, own, forward_macs = meter.now, meter.bytes_of(kept), meter.macs if meter.counted else plan.macs
    backward, most, macs = shared(plan, "backward", **options), 0, 0
    # The gradient lies in memory as the output does, or in the order of its axes.
    for seed in {s.stride(): s for s in (torch.empty_like(output), torch.empty(output.shape, device="meta"))}.values():
        after = Meter([seed, output, *given, *kept])
        _run(backward, [seed, *given, *kept], after)
        most, macs = max(most, after.most), max(macs, after.macs if after.counted else plan.backward_macs)
    return Memory(meter.most, own, held + most, forward_macs, macs)


def memory_of_chunks(plan: ChunkedPlan, training: bool) -> Memory:
    """Return the memory of a plan in chunks as torch allocates it, in float32.

    Args:
        training: whether the planned backward passes of chunks are counted, which autograd joins.
    """
    functions = dict.fromkeys(plan.spec.functions, torch.sigmoid)
    given = [_empty(plan, t, False) for t in (*plan.spec.inputs, *plan.spec.parameters)]
    meter = Meter(given)
    if training:
        return _with_autograd(partial(training_function(plan, functions=functions), *given), given, meter)
    function = lower(plan, functions=functions)
    with torch.no_grad(), meter, _Fused():
        function(*given)
    return Memory(meter.most, macs=meter.macs)


def _run(module: fx.GraphModule, tensors: Sequence[Tensor], meter: Meter) -> Any:
    """Run a graph under a meter."""
    with torch.no_grad(), meter, _Fused():
        return _Steps(module, meter).run(*tensors)


def _with_autograd(call: Callable[[], Tensor], given: Sequence[Tensor], meter: Meter) -> Memory:
    """Return the memory of a call with the backward pass of autograd, which keeps its own tensors."""
    wanted = [t.requires_grad_() for t in given]
    with torch.enable_grad(), meter, _Fused():
        output = call()
    forward, held, macs = meter.most, meter.now, meter.macs
    if not output.requires_grad:
        return Memory(forward, macs=macs)
    seed = torch.empty_like(output)
    meter.add(seed)
    before = meter.now
    meter.most = meter.now
    with meter, _Fused():
        found = torch.autograd.grad(output, wanted, seed, allow_unused=True)
    del found
    own = output.untyped_storage().nbytes()
    return Memory(forward, held - own, meter.most - (before - held), macs, meter.macs - macs)


def _empty(plan: Plan | ChunkedPlan, tensor: str, channels_first: bool) -> Tensor:
    """Return a tensor without data, in the layout that an input has."""
    shape = [value_of(atoms, plan.sizes) for atoms in plan.spec.shape(tensor)]
    if tensor not in plan.spec.inputs:
        return torch.empty(shape, device="meta")
    if not channels_first or not shape:
        return torch.empty([plan.batch, *shape], device="meta")
    return torch.empty([plan.batch, shape[-1], *shape[:-1]], device="meta").movedim(1, -1)
