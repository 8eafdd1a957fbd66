"""Questions about code: two readings with the same names for inputs and sizes, and differences confirmed by running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from polyattn.algebra import Polynomial, Spec
from polyattn.errors import PolyattnError, ProofError
from polyattn.language import Specification, value_of
from polyattn.lowering import lower, plan
from polyattn.proving import Verdict, ask
from polyattn.proving.prove import Asked
from polyattn.reading.asking import check_args, is_code, is_reading
from polyattn.reading.naming import Names, parse_names
from polyattn.reading.reading import Reading, read_as

APART = 1e-6
"""How far two float64 outputs are apart, relative to the larger, to count as different."""


@dataclass(frozen=True)
class Example:
    """Tensors at which two pieces of code differ.

    Attributes:
        inputs, parameters: by the names of the equation, in float64; inputs have a batch axis of length 1 first.
        entry: the entry of the output where they differ most.
        left, right: both values there.
    """

    inputs: Mapping[str, torch.Tensor]
    parameters: Mapping[str, torch.Tensor]
    entry: tuple[int, ...]
    left: float
    right: float


def prove_code(
    left: Any,
    right: Any,
    given: str | Sequence[str],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    names: str | Mapping[Any, str] | None,
    effort: int,
) -> Verdict:
    """Answer `prove` where a side, or both, are code."""
    asked, first, second = ask_code(left, right, given, args, kwargs, names)
    verdict = asked.verdict(effort)
    cuts = [f"{c.name} ({c.place})" for r in (first, second) if isinstance(r, Reading) for c in r.cuts]
    said = f"; cut: {', '.join(cuts)}" if cuts else ""
    if verdict.status != "different":
        return replace(verdict, reason=verdict.reason + said)
    return confirmed(verdict, first, second, given)


def ask_code(
    left: Any,
    right: Any,
    given: str | Sequence[str],
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    names: str | Mapping[Any, str] | None,
) -> tuple[Asked, Any, Any]:
    """Return the question about two sides, and the readings of both, or their specifications.

    Raises:
        ProofError, SpecError, ReadingError: as `prove`.
    """
    first, second = read_both(left, right, args, kwargs, names)
    try:
        return ask(_spec(first), _spec(second), given), first, second
    except ProofError:
        # Letters for parts of sizes may not fit together where their numbers do.
        first, second = read_both(left, right, args, kwargs, names, plain=True)
        return ask(_spec(first), _spec(second), given), first, second


def read_both(
    left: Any,
    right: Any,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    names: str | Mapping[Any, str] | None,
    plain: bool = False,
) -> tuple[Any, Any]:
    """Return the readings of code, and the specifications of the rest, with the same inputs."""
    known = parse_names(names)
    known = replace(known, plain=plain)
    equation = next((s for s in (left, right) if not is_code(s)), None)
    labels: tuple[str, ...] = ()
    if equation is not None:
        spec = _spec(equation)
        labels = tuple(spec.inputs)
        known = names_of(spec, args, kwargs, known)
    found: list[Any] = []
    for side in (left, right):
        if not is_code(side):
            found.append(_spec(side))
            continue
        if is_reading(side):
            found.append(side)
        else:
            check_args(side, args)
            found.append(read_as(side, () if args is None else args, kwargs, known, labels=labels))
        labels = labels or tuple(found[-1].spec.inputs)
    return found[0], found[1]


def names_of(spec: Spec, args: Any, kwargs: Any, known: Names) -> Names:
    """Return the letters of an equation's inputs and splits, where the caller gives none."""
    arguments = (args,) if isinstance(args, torch.Tensor) else tuple(args or ())
    tensors = [a for a in (*arguments, *(kwargs or {}).values()) if isinstance(a, torch.Tensor)]
    inputs = {}
    for (name, letters), tensor in zip(spec.inputs.items(), tensors, strict=False):
        if tensor.dim() - len(letters) in (0, 1):
            inputs[name] = (("B",) if tensor.dim() > len(letters) else ()) + tuple(
                letter if not letter.isdigit() else f"K{k}" for k, letter in enumerate(letters)
            )
    splits = {s.size: s.parts for s in spec.statements.splits if not any(p.isdigit() for p in s.parts)}
    if known.first is not None or known.inputs:
        inputs = dict(known.inputs) if known.inputs else {next(iter(spec.inputs)): known.first or ()}
    return Names(None, inputs, known.numbers, {} if known.plain else splits, known.plain)


def _spec(side: Any) -> Spec:
    if isinstance(side, Reading):
        return side.spec
    if isinstance(side, Polynomial):
        return Spec.of(side)
    if isinstance(side, Spec):
        return side
    return Spec(side.statements) if isinstance(side, Specification) else Spec(side)


def confirmed(verdict: Verdict, first: Any, second: Any, given: str | Sequence[str] = ()) -> Verdict:
    """Return a verdict "different" if the sides differ at the example's sizes as well, else "undecided".

    The sizes that code fixes are letters in its equation: a difference at other sizes is not the code's.
    """
    if given:
        return verdict
    example = difference(first, second)
    if example is None:
        where = {n: v for r in (first, second) if isinstance(r, Reading) for n, v in r.fixed.items()}
        shown = " ".join(f"{n}={v}" for n, v in where.items())
        reason = f"the equations differ, but at the sizes that the code fixes ({shown}) no difference was found"
        return Verdict("undecided", verdict.left, verdict.right, verdict.given, reason)
    entry = ",".join(map(str, example.entry))
    more = f"at the example's sizes their outputs are {example.left:.6g} and {example.right:.6g} at [{entry}]"
    return replace(verdict, reason=f"{verdict.reason}; {more}")


def difference(first: Any, second: Any, seed: int = 0) -> Example | None:
    """Return inputs and parameters at the example's sizes where two sides differ; None if there are none.

    Raises:
        ProofError: the two sides have different inputs or parameters' shapes.
    """
    specs = _spec(first), _spec(second)
    sizes: dict[str, int] = {}
    for reading in (first, second):
        if isinstance(reading, Reading):
            for name, number in reading.sizes.items():
                if sizes.setdefault(name, number) != number:
                    raise ProofError(f"the size {name} is {sizes[name]} on the left and {number} on the right")
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in specs:
        known = spec.sizes.solve({n: v for n, v in sizes.items() if n in spec.sizes.names}, spec.sizes.atomic)
        for name in (*spec.inputs, *spec.parameters):
            shape = tuple(value_of(atoms, known) for atoms in spec.shape(name))
            if shapes.setdefault(name, shape) != shape:
                raise ProofError(f"'{name}' has the shapes {shapes[name]} and {shape}")
            if name not in tensors:
                drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
                # Variances and the like are positive in both.
                tensors[name] = drawn.abs() + 0.5 if "var" in name else drawn
    outputs = []
    for spec in specs:
        numbers = {n: v for n, v in sizes.items() if n in spec.sizes.names}
        graph = lower(plan(spec, {**numbers, "B": 1}, "as_written"))
        inputs = [tensors[n].unsqueeze(0) for n in spec.inputs]
        outputs.append(graph(*inputs, **{n: tensors[n] for n in spec.parameters})[0])
    left, right = outputs
    apart = (left - right).abs()
    if not float(apart.max()) > APART * max(1.0, float(left.abs().max())):
        return None
    place = tuple(int(i) for i in torch.unravel_index(apart.argmax(), apart.shape))
    given = {n: tensors[n].unsqueeze(0) for n in specs[0].inputs}
    held = {n: t for n, t in tensors.items() if n not in given}
    return Example(given, held, place, float(left[place]), float(right[place]))


def difference_text(first: Any, second: Any, given: str | Sequence[str] = ()) -> list[str]:
    """Return lines that show inputs at which two sides differ, at the smallest sizes that the code leaves open."""
    if given:
        return []
    try:
        example = difference(*(_smallest(s) for s in (first, second)))
    except PolyattnError:
        return []
    if example is None:
        return []
    entry = ",".join(map(str, example.entry))
    lines = [
        f"in float64, entry [{entry}] of the outputs is {example.left:.6g} and {example.right:.6g}, for example with"
    ]
    for name, tensor in example.inputs.items():
        text = repr(
            [
                [round(v, 3) for v in row]
                for row in tensor.reshape(tensor.shape[1] if tensor.dim() > 1 else 1, -1).tolist()
            ]
        )
        lines.append(f"  {name} of shape {tuple(tensor.shape)}: {text if len(text) < 400 else text[:400] + ' ...'}")
    return lines


def _smallest(side: Any) -> Any:
    """Return a reading whose open sizes are as small as its splits allow."""
    if not isinstance(side, Reading):
        return side
    open_sizes = {n for n in side.sizes if n not in side.fixed and side.spec.sizes.parts(n) is None}
    split = {p for s in side.spec.statements.splits for p in (s.size, *s.parts)}
    return replace(side, sizes={n: 2 if n in open_sizes - split else v for n, v in side.sizes.items()})
