"""What a study says of memory and multiply-accumulates as run, against counts of real runs, on generated cases.

Each case is a specification of the whole language (`polyattn.testing.specifications`) with sizes from 1 to 40, a batch
from 1 to 5, an objective and an order of contraction. Its graphs run on the CPU with real tensors. A dispatch counter
written here adds up multiply-accumulates from the shapes of operands, by rules for each operation of torch; the peak
is added up from the allocator's record in torch's profiler. The study counts on tensors without data, and shares no
code with either. An operation without a rule ends the run with its name. Nothing is timed.

    python benchmarks/study.py --out benchmarks/results/study.json     # 2,000 cases; resumes; --most-minutes 4
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from _common import arguments, resumed, show
from _drawn import drawn
from _peak import peak_bytes
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn import Spec
from polyattn.language import value_of
from polyattn.lowering import lower, training_function
from polyattn.planning import Plan
from polyattn.study import complexity
from polyattn.study.orders import ORDERS
from polyattn.testing import specifications

CASES, LARGEST = 2_000, 40
NEAR, SMALL = 0.05, 1024
"""How far a peak may be off, as a share or, of peaks where a scalar is a large share, in bytes."""
FREE = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "slice",
    "select", "diagonal", "as_strided", "detach", "alias", "unbind", "split", "split_with_sizes", "unfold",
    "movedim", "clone", "copy_", "contiguous", "_to_copy", "lift_fresh", "constant_pad_nd", "cat", "stack", "zeros",
    "zeros_like", "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "empty",
    "empty_like", "empty_strided", "fill_", "zero_", "arange", "scalar_tensor", "eye", "tril", "triu",
    "_local_scalar_dense", "add", "add_", "sub", "sub_", "rsub", "neg", "sum", "mean", "amax", "amin", "max", "min",
    "where", "masked_fill", "masked_fill_", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_not", "bitwise_and", "bitwise_or", "exp", "log", "sqrt", "rsqrt", "abs", "relu", "sigmoid", "tanh",
    "silu", "gelu", "softplus", "elu", "sin", "cos", "div", "div_", "reciprocal", "clamp", "clamp_min", "maximum",
    "minimum", "sgn", "sign", "pow", "_softmax", "_log_softmax", "logsumexp", "cumsum", "flip", "index",
    "index_put", "index_put_", "gather", "scatter_add", "index_select", "index_add", "threshold_backward",
    "sigmoid_backward", "tanh_backward", "silu_backward", "gelu_backward", "softplus_backward", "elu_backward",
    "_softmax_backward_data", "_log_softmax_backward_data", "max_pool2d_with_indices", "roll", "repeat", "isfinite",
    "isnan", "all", "any", "new_empty", "new_empty_strided", "diagonal_copy", "diag_embed", "diagonal_backward",
    "slice_backward", "select_backward", "logcumsumexp", "floor", "remainder", "erf", "expm1", "log1p", "square",
    "set_", "resize_", "unfold_backward", "argmax", "narrow", "linspace",
}  # fmt: skip
"""Operations that multiply no two tensors, or count as functions do: nothing."""


class Products(TorchDispatchMode):
    """A counter of multiply-accumulates, from the shapes of operands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mul", "mul_"):
            both = all(isinstance(a, Tensor) for a in args[:2])
            self.macs += prod(torch.broadcast_shapes(*(a.shape for a in args[:2]))) if both else 0
        elif name in ("addcmul", "addcmul_"):
            self.macs += prod(torch.broadcast_shapes(*(a.shape for a in args[:3])))
        elif name in ("mm", "bmm"):
            self.macs += args[0].numel() * args[1].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.macs += args[1].numel() * args[2].shape[-1]
        elif name in ("mv", "dot", "vdot"):
            self.macs += args[0].numel()
        elif name == "convolution":
            self.macs += result.numel() * prod(args[1].shape[1:])
        elif name == "convolution_backward":
            taps = prod(args[2].shape[1:]) if not args[7] else args[2].shape[1] * prod(args[2].shape[2:])
            outer = args[0].numel() if not args[7] else args[1].numel()
            self.macs += outer * taps * sum(args[10][:2])
        elif name.startswith("_scaled_dot_product_flash_attention_for_cpu"):
            backward = name.endswith("_backward")
            q, k, v = args[1:4] if backward else args[:3]
            both = prod(q.shape[:-1]) * k.shape[-2]
            # Backward: the similarities once more, then dV, dP, dQ and dK.
            self.macs += both * (3 * q.shape[-1] + 2 * v.shape[-1] if backward else q.shape[-1] + v.shape[-1])
        elif name not in FREE:
            raise NotImplementedError(f"no rule for {name} of {[getattr(a, 'shape', a) for a in args]}")
        return result


@st.composite
def cases(draw: st.DrawFn) -> tuple[Spec, dict[str, int], int, str, str]:
    spec = draw(specifications())
    sizes = {name: draw(st.integers(1, LARGEST)) for name in spec.sizes.atomic}
    return (
        spec,
        sizes,
        draw(st.integers(1, 5)),
        draw(st.sampled_from(["forward", "training"])),
        draw(st.sampled_from(ORDERS)),
    )


def call_of(plan: Plan, objective: str) -> Callable[[], object]:
    """The passes of a plan; their results are kept until the end, as the study's peak has them."""
    spec, tensors = plan.spec, []
    generator = torch.Generator().manual_seed(0)
    for tensor in (*spec.inputs, *spec.parameters):
        numbers = [value_of(atoms, plan.sizes) for atoms in spec.shape(tensor)]
        own = [plan.batch, *numbers] if tensor in spec.inputs else numbers
        tensors.append(torch.rand(own, generator=generator) + 0.5)
    if objective == "forward":
        graph = lower(plan)

        def forward() -> object:
            with torch.no_grad():
                return graph(*tensors)

        return forward
    wanted = [t.requires_grad_() for t in tensors]
    layer = lower(plan) if plan.backward is None else training_function(plan)
    example = layer(*wanted)
    if not example.requires_grad:
        return lambda: layer(*wanted)
    seed = torch.ones_like(example)

    def both() -> object:
        output = layer(*wanted)
        return output, torch.autograd.grad(output, wanted, seed, allow_unused=True)

    return both


def measure(number: int) -> dict[str, Any]:
    found = None
    attempt = 0
    while found is None:
        found = drawn(cases(), f"study {number} {attempt}")
        attempt += 1
    spec, sizes, batch, objective, order = found
    (case,) = complexity({"layer": spec}, objective, orders=[order], B=batch, **sizes).cases
    call = call_of(case.plan, objective)
    with Products() as products:
        call()
    return {
        "spec": str(spec), "sizes": {"B": batch, **sizes}, "objective": objective, "order": order,
        "macs": case.macs, "macs as run": case.macs_as_run, "counted": products.macs,
        "peak": case.peak_bytes, "peak of the steps": case.step_peak_bytes, "allocated": peak_bytes(call, "cpu"),
    }  # fmt: skip


def far(run: dict[str, Any]) -> bool:
    return abs(run["peak"] - run["allocated"]) > max(
        NEAR * run["allocated"], SMALL if run["allocated"] < 20 * SMALL else 0
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    large = [r for r in runs if r["allocated"] >= 20 * SMALL]
    ratios = sorted(r["peak of the steps"] / r["allocated"] for r in large)
    return {
        "cases": len(runs),
        "specifications": len({r["spec"] for r in runs}),
        "training": sum(r["objective"] == "training" for r in runs),
        "with functions": sum(not Spec(r["spec"]).is_polynomial for r in runs),
        "MACs as run equal to those counted": sum(r["macs as run"] == r["counted"] for r in runs),
        "MACs of the steps equal to those counted": sum(r["macs"] == r["counted"] for r in runs),
        f"peaks within {NEAR:.0%}, small ones within {SMALL} bytes": sum(not far(r) for r in runs),
        "peaks equal": sum(r["peak"] == r["allocated"] for r in runs),
        f"peaks of {20 * SMALL:,} bytes and more": len(large),
        "of these within 5 %": sum(not far(r) for r in large),
        "of these, steps' peak within 5 %": sum(abs(q - 1) <= NEAR for q in ratios),
        "of these, median of the steps' peak over the allocated": ratios[len(ratios) // 2] if ratios else None,
    }


def main() -> None:
    args = arguments(__doc__, resumable=True)
    wanted = {f"case {k}": partial(measure, k) for k in range(40 if args.quick else CASES)}
    runs = resumed(args, wanted, summary)
    show("a study against real runs", ("what", "how many"), list(summary(runs).items()))
    for run in runs:
        if run["macs as run"] != run["counted"] or far(run):
            print(run)


if __name__ == "__main__":
    main()
