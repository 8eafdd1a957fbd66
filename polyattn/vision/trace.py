"""Running a network once for inspection, without lasting changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from polyattn.errors import InsertError

Example = Tensor | tuple[Any, ...]
"""An example: the network's input, or the tuple of all its arguments."""

Hook = Callable[[nn.Module, Any, Any], None]


@dataclass(frozen=True)
class Traced:
    """A submodule's output (B, C, *spatial), and the properties that a module after it must have.

    Attributes:
        output: output of its first call.
        device, dtype: device and dtype of the submodule's parameters; without parameters, those of its output.
        training: training flag of the submodule.
    """

    output: Tensor
    device: torch.device
    dtype: torch.dtype
    training: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.output.shape)

    @property
    def channels(self) -> int:
        return self.shape[1]


def run(module: nn.Module, *arguments: Any, hooks: Mapping[nn.Module, Hook] | None = None) -> Any:
    """Run the module in eval mode, without gradients, and return its output.

    Training flags, buffers and the states of torch's random generators are restored; hooks, by submodule, exist for
    this run only.
    """
    # Copies of the buffers take all updates of the run.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers() if not buffer.is_meta}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluating(module))
        for kind, numbers in _accelerators(module).items():
            stack.enter_context(torch.random.fork_rng(numbers, device_type=kind))
        for submodule, hook in (hooks or {}).items():
            stack.callback(submodule.register_forward_hook(hook).remove)
        return functional_call(module, buffers, arguments) if buffers else module(*arguments)


def arguments_of(model: nn.Module, example: Example | None) -> tuple[Any, ...]:
    """Return the arguments for a run of the model; without an example, an image of 224 x 224 zeros.

    Raises:
        InsertError: `example` is None and the model's first convolution does not take images; or parameters are
            uninitialised (lazy).
    """
    # A run would give lazy parameters their shapes, a lasting change.
    lazy = [name for name, p in chain(model.named_parameters(), model.named_buffers()) if is_lazy(p)]
    if lazy:
        raise InsertError(f"{lazy[0]!r} of the model has no shape yet: run the model once first")
    if example is not None:
        return example if isinstance(example, tuple) else (example,)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next(((name, m) for name, m in model.named_modules() if isinstance(m, kinds)), None)
    if first is None:
        raise InsertError("the model has no convolution that tells what its input is: give example_input=")
    name, convolution = first
    if not isinstance(convolution, nn.Conv2d) or convolution.in_channels != 3:
        raise InsertError(
            f"the model's first convolution, {name!r}, is a {type(convolution).__name__} of "
            f"{convolution.in_channels} channels, and takes no images: give example_input="
        )
    return (convolution.weight.new_zeros(1, 3, 224, 224),)


def trace(model: nn.Module, targets: Mapping[str, nn.Module], arguments: tuple[Any, ...]) -> dict[str, Traced]:
    """Record each target's output during a run of the model.

    Raises:
        InsertError: the model does not run; or a target is not called, does not return one tensor (B, C, *spatial), or
            returns several shapes.
    """
    outputs: dict[nn.Module, list[Any]] = {target: [] for target in targets.values()}

    def record(module: nn.Module, _: Any, output: Any) -> None:
        outputs[module].append(output)

    try:
        run(model, *arguments, hooks=dict.fromkeys(outputs, record))
    except Exception as error:
        given = ", ".join(str(tuple(a.shape)) if isinstance(a, Tensor) else type(a).__name__ for a in arguments)
        raise InsertError(f"the model does not run on the example input, {given}: {error}") from error
    return {name: _traced(name, target, outputs[target]) for name, target in targets.items()}


def _traced(name: str, target: nn.Module, outputs: list[Any]) -> Traced:
    if not outputs:
        raise InsertError(f"{name!r} is never called as the model runs on the example input")
    others = [type(output).__name__ for output in outputs if not isinstance(output, Tensor)]
    if others:
        raise InsertError(f"the output of {name!r} is a {others[0]}, not one tensor")
    shapes = dict.fromkeys(tuple(output.shape) for output in outputs)
    if len(shapes) > 1:
        several = " and ".join(map(str, shapes))
        raise InsertError(f"{name!r} is called {len(outputs)} times, and gives different shapes: {several}")
    if outputs[0].dim() < 3:
        raise InsertError(f"the output of {name!r} has the shape {tuple(outputs[0].shape)}, not (B, C, *spatial)")
    # The parameters decide: an output may be on another device or, under autocast, in another dtype.
    like = next((p for p in target.parameters() if p.is_floating_point()), outputs[0])
    return Traced(outputs[0], like.device, like.dtype, target.training)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set every training flag to False, and restore the flags afterwards.

    `eval()` is avoided, because a model may override it.
    """
    flags = {m: m.training for m in module.modules()}
    try:
        for m in flags:
            m.training = False
        yield
    finally:
        for m, flag in flags.items():
            m.training = flag


def _accelerators(module: nn.Module) -> dict[str, list[int]]:
    """Find the accelerators of the module, by kind; the CPU's random state is saved in any case."""
    devices = {t.device for t in chain(module.parameters(), module.buffers())}
    return {kind: sorted(d.index or 0 for d in devices if d.type == kind) for kind in ("cuda", "xpu")}
