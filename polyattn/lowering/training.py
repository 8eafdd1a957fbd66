"""A training plan as one differentiable function: the planned forward pass with the planned backward pass.

The function survives `torch.compile`, `torch.export`, `torch.func`, autocast, double backward and DDP: its backward
pass is itself a graph of differentiable torch operations, which, when it is differentiated in turn, computes the kept
values again, so that nothing is a constant that ought to be a function of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from polyattn.errors import SizeError
from polyattn.lowering.devices import calibrated, kind
from polyattn.lowering.graphs import CHECKED, Own, Sizes, is_narrow, shared
from polyattn.lowering.matching import Kernels, as_choice, fusions
from polyattn.lowering.module import as_function
from polyattn.planning import Apply, Device, Plan
from polyattn.planning.chunked_plan import ChunkedPlan
from polyattn.planning.steps import Leaf, multiplies

FEWER = 0.98
"""The share of autograd's multiply-accumulates from which on a planned backward pass counts as cheaper."""
CALLS = 3
"""Calls from Python for each step of a planned backward pass: the operation, and views of its operands."""
LESS_KEPT = 0.9
"""The share of autograd's kept bytes of a layer with functions from which on keeping it counts as less.

At equal arithmetic and equal memory such a layer is on the whole slower planned than in autograd: functions.json."""
PARTS: tuple[Literal["kept", "backward"], ...] = ("kept", "backward")
NEGLIGIBLE = 0.05
"""The share of a layer's time that those calls may take where nothing else is won."""


def differentiable(
    plan: Plan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    sizes: Sizes = CHECKED,
    functions: Mapping[str, Own] | None = None,
) -> Callable[..., Tensor]:
    """`f(*inputs, *parameters)` as layers run it: with the planned backward pass where it pays, else with autograd's.

    Args:
        plan: for any objective.
        channels_first, kernels, device, dtype, functions: see `lower`. Autocast may be on.
        sizes: those that are read from shapes, and whether shapes are checked in each call.
    """
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device, "dtype": dtype}
    model = device if isinstance(device, Device) else calibrated(kind(device))
    if plans_backward(plan, model, as_choice(kernels, device)):
        return training_function(plan, **options, sizes=sizes)
    return forward_function(plan, **options, sizes=sizes)


def plans_backward(plan: Plan, device: Device, chosen: Kernels) -> bool:
    """Return whether layers run the plan's own backward pass, and not autograd's or that of kernels."""
    return backward_pays(plan, device) and not kernels_differentiate(plan, chosen)


def forward_function(
    plan: Plan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    sizes: Sizes = CHECKED,
    functions: Mapping[str, Own] | None = None,
) -> Callable[..., Tensor]:
    """Return `f(*inputs, *parameters)`, the plan's operations one by one: differentiable by autograd."""
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device, "dtype": dtype}
    options["functions"] = functions
    function = as_function(shared(plan, "forward", **options, sizes=sizes))
    return without_autocast(function, len(plan.spec.inputs)) if is_narrow(dtype) else function


def without_autocast(function: Callable[..., Tensor], inputs: int) -> Callable[..., Tensor]:
    """A function of narrow tensors under autocast: the inputs are cast once, and its own casts are left alone."""

    def narrow(*tensors: Tensor) -> Tensor:
        kind = tensors[0].device.type
        kind = "cpu" if kind == "meta" else kind  # which autocast does not know
        if not torch.is_autocast_enabled(kind):
            return function(*tensors)
        dtype = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            return function(*(t.to(dtype) for t in tensors[:inputs]), *tensors[inputs:])

    return narrow


def backward_pays(plan: Plan, device: Device) -> bool:
    """Whether the planned backward pass is worth its steps, each a call from Python, which autograd's are not.

    It is where it takes less arithmetic than autograd's, and where the layer is so large that the steps do not count
    while less is kept.
    """
    if plan.backward is None:
        return False
    if plan.backward_macs <= FEWER * 2 * plan.macs:
        return True
    functions = any(isinstance(n, Apply) for n in plan.nodes)
    if functions and plan.step_kept_bytes > LESS_KEPT * _kept_by_autograd(plan):
        return False
    seconds = device.seconds(plan.graph) + device.seconds(plan.backward.graph)
    steps = sum(not isinstance(n, Leaf) for n in plan.backward.graph.nodes)
    return CALLS * device.step_seconds * steps <= NEGLIGIBLE * seconds


def _kept_by_autograd(plan: Plan) -> int:
    """Bytes of intermediates that autograd keeps of the forward pass: operands of products, results of functions."""
    nodes = plan.nodes
    kept = {o.value for n in nodes if multiplies(n) for o in n.operands}
    kept |= {k for k, n in enumerate(nodes) if isinstance(n, Apply)}
    return sum(plan.graph.bytes_of(k) for k in kept if nodes[k].operands)


def kernels_differentiate(plan: Plan, chosen: Kernels) -> bool:
    """Whether fused kernels of the forward pass bring backward passes of their own, taken instead of a planned one.

    Those that make functions do: a planned backward pass would keep the functions' results, which they never write.
    So does the bilinear transform, whose gradients are fused too.
    """
    fused = fusions(plan.graph, frozenset(), chosen).values()
    return any(f.kernel == "bilinear" or any(isinstance(plan.nodes[k], Apply) for k in f.absorbed) for f in fused)


def training_function(
    plan: Plan | ChunkedPlan,
    *,
    channels_first: bool = False,
    kernels: str | Sequence[str] = "auto",
    device: str | Device = "cpu",
    dtype: str | torch.dtype = "float32",
    sizes: Sizes = CHECKED,
    functions: Mapping[str, Own] | None = None,
) -> Callable[..., Tensor]:
    """Return `f(*inputs, *parameters)`: a training plan's output, whose gradients its backward pass makes.

    Args:
        plan: for the objective "training", also one in chunks: then each chunk has its planned backward pass.
        channels_first, kernels, device, dtype, functions: see `lower`. Autocast may be on.
        sizes: those that are read from shapes, and whether shapes are checked in each call; of a plan of all positions
            at once.

    Raises:
        SizeError: `plan` is not a plan, or has no backward pass.

    >>> import torch, polyattn
    >>> made = polyattn.plan("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 10, "C": 4}, "training")
    >>> x, w = torch.randn(1, 10, 4), torch.randn(4, 4, requires_grad=True)
    >>> training_function(made)(x, w).sum().backward()
    >>> w.grad.shape
    torch.Size([4, 4])
    """
    options: dict[str, Any] = {"channels_first": channels_first, "kernels": kernels, "device": device, "dtype": dtype}
    options["functions"] = functions
    if isinstance(plan, ChunkedPlan):
        from polyattn.lowering.chunking import LoweredChunks  # which imports this module

        if any(p.backward is None for p in plan.plans):
            raise SizeError("this plan has no planned backward pass: plan with objective='training'")
        return LoweredChunks(plan, training=True, **options)
    graphs = [shared(plan, part, **options, sizes=sizes) for part in PARTS]
    forward_graph, backward_graph = (type(graph).forward for graph in graphs)

    # torch.matmul copies an operand that it would not copy otherwise where the other asks for a gradient.
    apart = any(n.target is torch.matmul for g in graphs for n in g.graph.nodes)

    def run(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        output, *kept = forward_graph(None, *([t.detach() for t in tensors] if apart else tensors))
        # A kept output needs a tensor of its own: what is kept is marked as without a gradient.
        return (output, *[k.detach() if k is output else k for k in kept])

    def save(ctx: Any, inputs: tuple[Tensor, ...], kept: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *kept)
        ctx.count = len(inputs)
        device = inputs[0].device.type
        device = "cpu" if device == "meta" else device  # which autocast does not know
        enabled = torch.is_autocast_enabled(device)
        ctx.autocast = (device, enabled, torch.get_autocast_dtype(device) if enabled else None)

    def gradients(seed: Tensor, saved: tuple[Tensor, ...], count: int) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            inputs = saved[:count]
            return backward_graph(None, seed, *inputs, *forward_graph(None, *inputs)[1:])
        return backward_graph(None, seed, *([t.detach() for t in saved] if apart else saved))

    def backward(ctx: Any, seed: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        device, enabled, dtype = ctx.autocast
        if not enabled and not torch.is_autocast_enabled(device):
            return gradients(seed, ctx.saved_tensors, ctx.count)
        with torch.autocast(device, enabled=enabled, dtype=dtype):
            return gradients(seed, ctx.saved_tensors, ctx.count)

    class PlannedLayer(torch.autograd.Function):
        """For eager calls: without `setup_context`, with which each call costs torch more than a small layer."""

        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Tensor:
            output, *kept = run(tensors)
            save(ctx, tensors, tuple(kept))
            return output

    class TransformedLayer(torch.autograd.Function):
        """For compilers and the transforms of `torch.func`, which need `setup_context`."""

        generate_vmap_rule = True

        @staticmethod
        def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
            return run(tensors)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
            ctx.mark_non_differentiable(*output[1:])
            save(ctx, inputs, output[1:])

    PlannedLayer.backward = TransformedLayer.backward = staticmethod(backward)

    def apply(*tensors: Tensor) -> Tensor:
        if forward_ad._current_level >= 0 or tensors[0].is_complex():
            # Forward mode goes through the graph's own operations: in a Function, second derivatives would be lost.
            # A planned backward pass takes no conjugates.
            return forward_graph(None, *tensors)[0]
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return TransformedLayer.apply(*tensors)[0]
        return PlannedLayer.apply(*tensors)

    return without_autocast(apply, len(plan.spec.inputs)) if is_narrow(dtype) else apply
