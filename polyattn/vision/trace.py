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
from polyattn.vision.arrangement import Arrangement, axis_of, tokens_of, told_by_sizes, told_by_widths

Example = Tensor | tuple[Any, ...]
"""An example: the network's input, or the tuple of all its arguments."""

Hook = Callable[[nn.Module, Any, Any], None]


@dataclass(frozen=True)
class Traced:
    """A submodule's output, and the properties that a module after it must have.

    Attributes:
        output: output of its first call, as (B, C, *spatial).
        arrangement: the layout in which the submodule returns it.
        device, dtype: device and dtype of the submodule's parameters; without parameters, those of its output.
        training: training flag of the submodule.
    """

    output: Tensor
    arrangement: Arrangement
    device: torch.device
    dtype: torch.dtype
    training: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.output.shape)

    @property
    def channels(self) -> int:
        return self.shape[1]


def run(
    module: nn.Module,
    *arguments: Any,
    hooks: Mapping[nn.Module, Hook] | None = None,
    state: Mapping[str, Tensor] | None = None,
    gradients: bool = False,
) -> Any:
    """Run the module in eval mode, by default without gradients, and return its output.

    Training flags, buffers and the states of torch's random generators are restored; hooks, by submodule, exist for
    this run only, and so do other parameters in `state`.
    """
    # Copies of the buffers take all updates of the run.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers() if not buffer.is_meta}
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(gradients))
        stack.enter_context(_evaluating(module))
        for kind, numbers in _accelerators(module).items():
            stack.enter_context(torch.random.fork_rng(numbers, device_type=kind))
        for submodule, hook in (hooks or {}).items():
            stack.callback(submodule.register_forward_hook(hook).remove)
        own = {**buffers, **(state or {})}
        return functional_call(module, own, arguments) if own else module(*arguments)


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


def trace(
    model: nn.Module,
    targets: Mapping[str, nn.Module],
    keys: Mapping[str, str],
    arguments: tuple[Any, ...],
    layout: str | None = None,
    prefix_tokens: int | None = None,
) -> dict[str, Traced]:
    """Record each target's output during a run of the model.

    Args:
        keys: of the entry, by name, for targets that return a dict, list or tuple.
        layout, prefix_tokens: see `insert`; None if they are to be found.

    Raises:
        InsertError: the model does not run; or a target is not called, does not return a tensor of a layout that can
            be told, or returns several numbers of channels.
    """
    patches = _patches(model)
    wanted = {*targets.values()} | ({patches} if patches is not None else set())
    try:
        outputs, error = _outputs(model, wanted, arguments)
        if error is not None:
            raise error
    except Exception as error:
        given = ", ".join(str(tuple(a.shape)) if isinstance(a, Tensor) else type(a).__name__ for a in arguments)
        raise InsertError(f"the model does not run on the example input, {given}: {error}") from error
    other: dict[nn.Module, list[Any]] = {}
    grid = None
    if patches is not None and outputs[patches]:
        height, width = outputs[patches][0].shape[2:]
        grid = (height, width)
    found = {}
    for name, target in targets.items():
        output = _checked(name, outputs[target], keys.get(name))
        shape = tuple(output.shape)
        if layout is not None:
            axis = axis_of(layout, name, shape)
        else:
            axis = told_by_widths(target, model, shape)
            if axis is None:
                # Of a run at another size, all that came before it failed counts too.
                other = other or _outputs(model, wanted, _larger(arguments))[0]
                larger = [entry_of(output, keys.get(name)) for output in other[target]]
                axis = told_by_sizes(name, model, shape, larger)
        arrangement = Arrangement(axis)
        if axis == 2 and len(shape) == 3:
            arrangement = tokens_of(name, model, shape, grid, prefix_tokens)
        elif prefix_tokens:
            raise InsertError(f"`prefix_tokens` is {prefix_tokens}, but the output of {name!r}, {shape}, has no tokens")
        found[name] = _traced(target, output, arrangement)
    return found


def _outputs(
    model: nn.Module, wanted: set[nn.Module], arguments: tuple[Any, ...]
) -> tuple[dict[nn.Module, list[Any]], Exception | None]:
    """Run the model; return the outputs of modules, and the error that ended the run."""
    outputs: dict[nn.Module, list[Any]] = {module: [] for module in wanted}

    def record(module: nn.Module, _: Any, output: Any) -> None:
        outputs[module].append(output)

    try:
        run(model, *arguments, hooks=dict.fromkeys(outputs, record))
    except Exception as error:
        return outputs, error
    return outputs, None


def _larger(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments with images, clips and sequences of other lengths, which differ from each other."""

    def larger(given: Any) -> Any:
        if not isinstance(given, Tensor) or given.dim() < 3 or not given.is_floating_point():
            return given
        spatial = given.shape[2:]
        # 32 times whole numbers, for networks that halve their maps five times.
        return given.new_zeros(*given.shape[:2], *(n + 32 * (1 + k) for k, n in enumerate(spatial)))

    return tuple(map(larger, arguments))


def _patches(model: nn.Module) -> nn.Module | None:
    """Return the patch embedding: the first convolution, if its patches do not overlap."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or max(first.kernel_size) == 1:
        return None
    return first


def entry_of(output: Any, key: str | None) -> Any:
    """Return a dict's, list's or tuple's entry; None without such an entry; the output itself without a key."""
    if key is None:
        return output
    if isinstance(output, Mapping):
        return next((entry for own, entry in output.items() if str(own) == key), None)
    if isinstance(output, list | tuple) and key.isdigit() and int(key) < len(output):
        return output[int(key)]
    return getattr(output, key, None) if key in getattr(output, "_fields", ()) else None


def _keys_of(output: Any) -> list[str]:
    """Return the keys of the tensors in a dict, list or tuple."""
    entries = output.items() if isinstance(output, Mapping) else enumerate(output)
    return [str(key) for key, entry in entries if isinstance(entry, Tensor)]


def _checked(name: str, outputs: list[Any], key: str | None) -> Tensor:
    if not outputs:
        raise InsertError(f"{name!r} is never called as the model runs on the example input")
    several = next((output for output in outputs if isinstance(output, Mapping | list | tuple)), None)
    if several is not None and not isinstance(entry_of(several, key), Tensor):
        have = [f"'{name.removesuffix(f'[{key}]')}[{own}]'" for own in _keys_of(several)]
        hint = f": name one of its tensors, {' or '.join(have)}" if have else ", which holds no tensors"
        raise InsertError(f"the output of {name!r} is a {type(several).__name__}{hint}")
    outputs = [entry_of(output, key) for output in outputs]
    others = [type(output).__name__ for output in outputs if not isinstance(output, Tensor)]
    if others:
        raise InsertError(f"the output of {name!r} is a {others[0]}, not one tensor")
    shapes = dict.fromkeys(tuple(output.shape) for output in outputs)
    # A module shared over the levels of a pyramid has maps of one number of channels and several sizes.
    if len({(len(shape), shape[:2]) for shape in shapes}) > 1:
        several = " and ".join(map(str, shapes))
        raise InsertError(f"{name!r} is called {len(outputs)} times, and gives different shapes: {several}")
    if outputs[0].dim() < 3:
        raise InsertError(f"the output of {name!r} has the shape {tuple(outputs[0].shape)}, not (B, C, *spatial)")
    return outputs[0]


def _traced(target: nn.Module, output: Tensor, arrangement: Arrangement) -> Traced:
    # The parameters decide: an output may be on another device or, under autocast, in another dtype.
    like = next((p for p in target.parameters() if p.is_floating_point()), output)
    return Traced(arrangement.forth(output), arrangement, like.device, like.dtype, target.training)


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
