"""Building the module to insert, for the output of its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from torch import Tensor, nn

from polyattn.algebra import Spec
from polyattn.errors import InsertError, PolyattnError
from polyattn.nn import Attention
from polyattn.nn.sizes import layout, missing_sizes
from polyattn.vision.trace import Traced, run

Value = Spec | str | nn.Module | Callable[[int], nn.Module]
"""An insertable value: a specification or its text, a module, or a callable from the number of channels to a module."""


def make(name: str, value: Value, target: nn.Module, traced: Traced, sizes: Mapping[str, int]) -> nn.Module:
    """Build the module of a value to insert after a target, and test it on the target's output.

    Raises:
        InsertError: the module cannot be built, does not run, or changes the shape or dtype.
    """
    place = f"after {name!r}, whose output is {traced.shape}"
    try:
        module = _module(value, traced, sizes)
        output = run(module, traced.output)
    except Exception as error:
        # Foreign errors often make sense only with their type, such as a bare KeyError.
        kind = "" if isinstance(error, PolyattnError) else f"{type(error).__name__}: "
        raise InsertError(f"{place}: {kind}{error}") from error
    if not isinstance(output, Tensor):
        raise InsertError(f"{place}: the attention gives a {type(output).__name__}, not one tensor")
    if output.shape != traced.shape:
        raise InsertError(f"{place}: the attention gives the shape {tuple(output.shape)}")
    if output.dtype != traced.output.dtype:
        raise InsertError(f"{place}, {traced.output.dtype}: the attention gives {output.dtype}")
    # A cycle of modules makes `train` and `forward` recurse without end.
    if target in module.modules():
        raise InsertError(f"{place}: the attention contains the module that it is put after")
    return module


def _module(value: Value, traced: Traced, sizes: Mapping[str, int]) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, str):
        value = Spec(value)
    if isinstance(value, Spec):
        given = {size: number for size, number in sizes.items() if size in value.sizes.names}
        found = spatial_sizes(value, traced.shape, given)
        made = Attention(value, traced.channels, sizes=found | given, device=traced.device, dtype=traced.dtype)
    elif callable(value):
        made = value(traced.channels)
        if not isinstance(made, nn.Module):
            raise InsertError(f"{_name(value)}({traced.channels}) is a {type(made).__name__}, not a module")
        made = made.to(device=traced.device, dtype=traced.dtype)
    else:
        raise InsertError(f"{value!r} is no specification, no module and no callable that makes one")
    # New modules start in training mode, whatever the network's mode.
    return made.train(traced.training)


def spatial_sizes(spec: Spec, shape: tuple[int, ...], sizes: Mapping[str, int]) -> dict[str, int]:
    """Find the sizes of positions needed by a specification's parameters, from an output (B, C, *spatial).

    >>> spec = Spec("x[H,W,C]; y[i,j,c] = p[i,k]*x[k,j,c]")
    >>> spatial_sizes(spec, (1, 64, 14, 20), {})
    {'H': 14}
    """
    channel_size, positions = layout(spec)
    lengths = (prod(shape[2:]),) if len(positions) == 1 else shape[2:]
    if len(lengths) != len(positions):
        raise InsertError(f"the specification has the positions {', '.join(positions)}, the output {len(lengths)} axes")
    found = {p: n for p, n in zip(positions, lengths, strict=True) if not p.isdigit() and p not in sizes}
    have = {*sizes, channel_size}
    # Only sizes that a parameter needs are fixed to this output; the layer then accepts maps of all other sizes.
    unknown = missing_sizes(spec, dict.fromkeys((*have, *found), 0))
    for position in list(found):
        others = [p for p in found if p != position]
        if missing_sizes(spec, dict.fromkeys((*have, *others), 0)).keys() == unknown.keys():
            del found[position]
    return found


def _name(value: object) -> str:
    return getattr(value, "__name__", None) or type(value).__name__
