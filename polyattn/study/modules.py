"""`Baseline`: a module of torch beside the layers of a study, counted by the operations that it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyattn.errors import PolyattnError, SizeError
from polyattn.nn.attention import Attention
from polyattn.nn.block import Block
from polyattn.optimising.pricing import Price, price
from polyattn.planning import Device

Make = nn.Module | Callable[..., nn.Module]


@dataclass(frozen=True, eq=False)
class Baseline:
    """A module to compare layers with: a convolution, `nn.MultiheadAttention`, any block.

    Attributes:
        module: the module, or a function that makes it of sizes by name, such as `lambda C: nn.Conv2d(C, C, 3,
            padding=1)`.
        layout: names of the input's axes, such as "B C H W"; by default a map for modules with convolutions and for
            blocks of `polyattn.nn`, else a sequence (B, N, C).
        call: calls the module on its input; by default `module(x)`, for `nn.MultiheadAttention` as self-attention.
    """

    module: Make
    layout: str | None = None
    call: Callable[[nn.Module, Tensor], Any] | None = None

    @property
    def sizes(self) -> tuple[str, ...]:
        """Return the names of sizes that it needs, as far as they are known beforehand."""
        made = [] if isinstance(self.module, nn.Module) else list(inspect.signature(self.module).parameters)
        return tuple(dict.fromkeys([*made, *(self.layout or "").split()]))

    def made(self, name: str, point: Mapping[str, int]) -> nn.Module:
        """Return the module at these sizes.

        Raises:
            SizeError: a size is missing, or the function does not return a module.
        """
        if isinstance(self.module, nn.Module):
            return self.module
        wanted = list(inspect.signature(self.module).parameters)
        found = self.module(**{n: _size(name, n, point) for n in wanted})
        if not isinstance(found, nn.Module):
            raise SizeError(f"{name}: `module` is a module or a function that returns one; it returned {found!r}")
        return found

    def shape(self, name: str, module: nn.Module, point: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of the input at these sizes.

        Raises:
            SizeError: a size is missing.
        """
        if self.layout is not None:
            return tuple(_size(name, n, point) for n in self.layout.split())
        batch, channels = _size(name, "B", point), _size(name, "C", point)
        sides = tuple(point[n] for n in ("H", "W") if n in point)
        if isinstance(module, nn.MultiheadAttention):
            positions = prod(sides) if len(sides) == 2 and "N" not in point else _size(name, "N", point)
            return (batch, positions, channels) if module.batch_first else (positions, batch, channels)
        axes = next((m.weight.ndim - 2 for m in module.modules() if isinstance(m, _CONVOLUTIONS)), None)
        if axes is None and any(isinstance(m, Attention | Block) for m in module.modules()):
            axes = 2
        if axes == 3:
            raise SizeError(f'{name}: a module of clips needs `layout`, such as Baseline(module, "B C T H W")')
        if axes == 2 and len(sides) == 2:
            return (batch, channels, *sides)
        positions = prod(sides) if len(sides) == 2 and "N" not in point else _size(name, "N", point)
        if axes == 2:
            # As near to a square as can be.
            height = next(h for h in range(isqrt(positions), 0, -1) if positions % h == 0)
            return batch, channels, height, positions // height
        return (batch, channels, positions) if axes == 1 else (batch, positions, channels)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the first tensor of the module's output."""
        if self.call is not None:
            found = self.call(module, x)
        elif isinstance(module, nn.MultiheadAttention):
            found = module(x, x, x, need_weights=False)
        else:
            found = module(x)
        while isinstance(found, tuple | list):
            found = found[0]
        return found


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _size(name: str, size: str, point: Mapping[str, int]) -> int:
    if size == "B":
        return point.get("B", 1)
    if size not in point:
        raise SizeError(f"{name}: this module needs the size {size}; give it, such as {size}=64, or `layout=`")
    return point[size]


@dataclass(frozen=True)
class Counted:
    """A module's costs at one point.

    Attributes:
        price: multiply-accumulates, bytes and seconds of its operations.
        parameters: number of its learnt entries.
    """

    price: Price
    parameters: int


def count(name: str, baseline: Baseline, point: Mapping[str, int], objective: str, device: Device) -> Counted:
    """Count a module at a point, on tensors without data.

    Raises:
        SizeError: a size is missing, or the module does not run on the input.
    """
    module = baseline.made(name, point)
    shape = baseline.shape(name, module, point)
    learnt = {n: p for n, p in module.named_parameters() if p.requires_grad}
    # Copies, since norms count their batches in place.
    buffers = {f"module.{n}": b.clone() for n, b in module.named_buffers()}
    dtype = next((p.dtype for p in learnt.values() if p.is_floating_point()), torch.float32)
    modes = [(m, m.training) for m in module.modules()]

    def function(x: Tensor, *tensors: Tensor) -> Tensor:
        own = {f"module.{n}": t for n, t in zip(learnt, tensors, strict=True)} | buffers
        return functional_call(_Called(module, baseline), own, (x,))

    quick = torch.backends.mha.get_fastpath_enabled()
    try:
        module.train(objective == "training")
        # Torch's fast path of attention is one operation, whose products nothing counts.
        torch.backends.mha.set_fastpath_enabled(False)
        x = torch.empty(shape, dtype=dtype, device=next((p.device for p in module.parameters()), "cpu"))
        found, _ = price(function, [x, *learnt.values()], device, objective == "training")
    except PolyattnError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SizeError(
            f"{name}: the module does not run on an input of shape {shape}: {reason}; say its axes with "
            f'`pa.study.Baseline(module, "B C H W")`, and how it is called with `call=`'
        ) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(quick)
        for own, mode in modes:
            own.training = mode
    return Counted(found, sum(p.numel() for p in learnt.values()))


class _Called(nn.Module):
    """A module called as its baseline says."""

    def __init__(self, module: nn.Module, baseline: Baseline):
        super().__init__()
        self.module, self.baseline = module, baseline

    def forward(self, x: Tensor) -> Tensor:
        return self.baseline.run(self.module, x)


def timed_call(
    name: str, baseline: Baseline, point: Mapping[str, int], objective: str, device: str, dtype: str
) -> Callable[[], object]:
    """Return a call of the module on random numbers, to be timed."""
    from copy import deepcopy

    module = deepcopy(baseline.made(name, point)).to(device, getattr(torch, dtype)).train(objective == "training")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(baseline.shape(name, module, point), generator=generator).to(device, getattr(torch, dtype))
    if objective != "training":

        def evaluate() -> object:
            with torch.no_grad():
                return baseline.run(module, x)

        return evaluate
    wanted = [x.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]
    seed = torch.ones_like(baseline.run(module, x))
    return lambda: torch.autograd.grad(baseline.run(module, x), wanted, seed, allow_unused=True)
