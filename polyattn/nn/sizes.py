"""Sizes of a layer: those needed by its parameters, and those known before the first input."""

from __future__ import annotations

from collections.abc import Mapping

from polyattn.algebra import Spec
from polyattn.errors import SizeError, SpecError
from polyattn.language.sizes import names_in


def layout(spec: Spec) -> tuple[str, tuple[str, ...]]:
    """Return the name of the channels' size and the names of the positions' sizes of a layer's input.

    Raises:
        SpecError: the specification is not a layer: it has several inputs, or an output of another shape.
    """
    if len(spec.inputs) != 1:
        raise SpecError(f"a module has one input; this specification has {len(spec.inputs)}: {', '.join(spec.inputs)}")
    (name, shape), *_ = spec.inputs.items()
    if "B" in shape:  # Attention would take it for positions, and silently mix samples
        raise SpecError(
            f"a module's input has no slot for the batch, which '{name}[{','.join(shape)}]' calls B: write "
            f"{name}[{','.join(s for s in shape if s != 'B')}], or give the size another name"
        )
    if shape[0] == "C" and shape[-1] in ("L", "W"):
        raise SpecError(
            f"a module's input has its channels in the last slot, whatever the memory of its map (B, C, ...): write "
            f"{name}[{','.join((*shape[1:], 'C'))}], not {name}[{','.join(shape)}]"
        )
    if len(shape) < 2:
        raise SpecError(f"a module's input has positions and channels, such as x[N,C]; '{name}' has {len(shape)} slot")
    if spec.shape(name) != spec.shape(spec.output):
        raise SpecError(
            f"a module's output has the shape of its input: '{name}' is [{','.join(shape)}], "
            f"but '{spec.output}' is [{','.join(spec.output_shape)}]"
        )
    return shape[-1], shape[:-1]


def given_sizes(spec: Spec, channels: int, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """Return the given sizes with the channels added.

    Raises:
        SizeError: a size is unknown, or contradicts another size or the channels.
    """
    given = dict(sizes or {})
    channel_size, _ = layout(spec)
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise SizeError(f"channels must be a positive whole number, not {channels!r}")
    if channel_size.isdigit():
        if int(channel_size) != channels:
            raise SizeError(f"the specification fixes {channel_size} channels, not {channels}")
    elif given.setdefault(channel_size, channels) != channels:
        raise SizeError(f"{channel_size} = {given[channel_size]} in sizes contradicts channels={channels}")
    spec.sizes.solve(given)
    return given


def checked_sizes(spec: Spec, sizes: Mapping[str, int] | None) -> dict[str, int]:
    """Return the given sizes of a layer whose inputs fix the others.

    Raises:
        SizeError: a size is unknown, contradicts another one, or is fixed neither by `sizes` nor by the inputs.
    """
    given = dict(sizes or {})
    spec.sizes.solve(given)
    known = spec.sizes.fixed_by({*given, *(size for shape in spec.inputs.values() for size in shape)})
    open_sizes = [size for size in spec.sizes.atomic if size not in known]
    if open_sizes:
        example = ", ".join(f'"{size}": ...' for size in open_sizes)
        raise SizeError(
            f"missing size{'s' * (len(open_sizes) > 1)} {', '.join(open_sizes)}, which no input fixes: "
            f"give sizes={{{example}}}"
        )
    return given


def missing_sizes(spec: Spec, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the sizes needed by parameters but not fixed by `sizes`, each with its first parameter."""
    missing: dict[str, str] = {}
    for name in spec.parameters:
        for atom in (a for atoms in spec.shape(name) for a in atoms):
            # A missing size may fix others (where D = J*R): only sizes that the user must give are reported.
            for size in names_in(atom):
                if size not in spec.sizes.fixed_by({*sizes, *missing}):
                    missing[size] = name
    return missing


def parameter_sizes(spec: Spec, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the values of all sizes needed by parameters.

    Raises:
        SizeError: sizes are missing; names each with its parameter.
    """
    missing = missing_sizes(spec, sizes)
    if missing:
        wanted = ", ".join(f"{size} (for parameter '{name}')" for size, name in missing.items())
        example = ", ".join(f'"{size}": ...' for size in missing)
        reason = f"missing size{'s' * (len(missing) > 1)} {wanted}: give sizes={{{example}}}"
        raise SizeError(reason + _if_a_slip(spec, missing))
    return spec.sizes.solve(sizes)


def _if_a_slip(spec: Spec, missing: Mapping[str, str]) -> str:
    """Return the other remedies for parameters that need a number of positions and are not declared to be ones."""
    meant = {p.name for p in spec.statements.parameters}
    positions = {size for shape in spec.inputs.values() for size in shape[:-1]}
    slips = [name for size, name in missing.items() if size in positions and name not in meant]
    if not slips:
        return ""
    name = slips[0]
    shape = ",".join(spec.parameters[name])
    return (
        f". '{name}' is declared nowhere, and a parameter of its shape serves one number of positions only: if that is "
        f"meant, say so ('where {name} : parameter'); else define it, or declare it as an input ('{name}[{shape}]')"
    )
