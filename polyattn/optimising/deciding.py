"""Whether a region is replaced: read, planned, priced, tried and proved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.errors import PolyattnError, ReadingError
from polyattn.lowering import calibrated, kind, plan
from polyattn.optimising.pricing import Price, price
from polyattn.optimising.program import Program
from polyattn.planning import Device
from polyattn.proving import Verdict, prove
from polyattn.reading import Reading
from polyattn.reading.comparing import names_of
from polyattn.reading.naming import Names
from polyattn.reading.reading import read_as

WORTH = 0.9
"""The share of a region's price that its plan may have at most."""
SLACK = 16.0
"""How many times the error of the code as it was, against float64, a plan's may be."""


class LeftError(Exception):
    """A region is left as it is; the message is the reason."""


class NoGainError(LeftError):
    """No plan of a region costs less than its code."""


class CutError(LeftError):
    """A region has operations without a meaning; `operations` has their names."""

    def __init__(self, operations: Sequence[str]):
        super().__init__(f"{', '.join(dict.fromkeys(operations))} has no meaning in the language")
        self.operations = tuple(operations)


@dataclass(frozen=True)
class Decision:
    """A region that is replaced: its program, the equation, both prices and the proof."""

    program: Program
    reading: Reading
    before: Price
    after: Price
    verdict: Verdict


def decided(
    module: nn.Module,
    call: Callable[..., Any],
    as_code: Callable[[Callable[..., Any] | None], nn.Module],
    tensors: Sequence[Tensor],
    objective: str,
    static: Sequence[Sequence[int]] = (),
) -> Decision:
    """Return a region's replacement.

    Args:
        module: the module whose parameters the region uses.
        call: the region as it was, a function of the module and of tensors.
        as_code: returns the region as a module of its tensors; with a function of the module and of tensors in the
            place of its code, if one is given.
        tensors: an example of its tensors.
        objective: "forward" or "training".
        static: for each tensor, the axes whose lengths are numbers.

    Raises:
        LeftError: the region is left as it is.
    """
    if not tensors or not all(t.is_floating_point() for t in tensors):
        raise LeftError("takes tensors that are not floating-point")
    device = calibrated(kind(tensors[0].device.type))
    training = objective == "training"
    before, result = _priced(lambda *t: call(module, *t), tensors, device, training)
    if not isinstance(result, Tensor):
        raise LeftError("returns more than one tensor")
    reading = _read(as_code(None), tensors, static)
    accuracy = _accuracy(reading, before, device, objective)
    try:
        program = Program(reading, module, tensors, result, **_layout(module, call, tensors), accuracy=accuracy)
    except ReadingError as error:
        raise LeftError(str(error)) from error
    if not program.fits(*tensors):
        raise LeftError("takes sizes of 1")
    after, planned = _priced(lambda *t: program(module, *t), tensors, device, training)
    if after.seconds > WORTH * before.seconds:
        raise NoGainError("no plan costs less")
    if planned.shape != result.shape or planned.dtype != result.dtype:
        raise LeftError("the plan's result has another shape or type")
    tried(module, call, program, tensors)
    verdict = _proved(reading, as_code(program), tensors, static)
    return Decision(program, reading, before, after, verdict)


def _priced(
    function: Callable[..., Any], tensors: Sequence[Tensor], device: Device, training: bool
) -> tuple[Price, Any]:
    try:
        return price(function, tensors, device, training)
    except Exception as error:
        raise LeftError(f"cannot be followed on fake tensors ({type(error).__name__})") from error


def _read(code: nn.Module, tensors: Sequence[Tensor], static: Sequence[Sequence[int]]) -> Reading:
    try:
        reading = read_as(code, tuple(tensors), None, Names(), static=static)
    except ReadingError as error:
        raise LeftError(f"cannot be read: {str(error).partition(chr(10))[0]}") from error
    if reading.cuts:
        raise CutError([c.operation for c in reading.cuts])
    return reading


def _accuracy(reading: Reading, before: Price, device: Device, objective: str) -> str:
    """Return which plans to take: any, if the cheapest loses no higher power of a map's mean than the code."""
    options: dict[str, Any] = {"device": device}
    try:
        cheapest = plan(reading.spec, reading.numbers, objective, **options)
        if cheapest.accuracy is None or cheapest.accuracy.wide <= cheapest.accuracy.written[0]:
            return "any"
        plan(reading.spec, reading.numbers, objective, accuracy="written", **options)
    except PolyattnError as error:
        raise LeftError(f"cannot be planned: {str(error).partition(chr(10))[0]}") from error
    return "written"


def _layout(module: nn.Module, call: Callable[..., Any], tensors: Sequence[Tensor]) -> dict[str, Any]:
    """Return how a region's result lies in memory for channels-last inputs, and whether autocast narrows it."""
    wide: Tensor | None = None
    device = calibrated(kind(tensors[0].device.type))
    if tensors[0].dim() == 4:
        last = [t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors]
        wide = price(lambda *t: call(module, *t), last, device)[1]
    with torch.autocast(tensors[0].device.type, dtype=torch.bfloat16):
        try:
            found = price(lambda *t: call(module, *t), tensors, device)[1]
        except RuntimeError:
            return {"wide": wide}
    return {"wide": wide, "narrow": found.dtype == torch.bfloat16}


def tried(module: nn.Module, call: Callable[..., Any], program: Program, tensors: Sequence[Tensor]) -> None:
    """Run both on the example, and on the example with a mean, against the code in float64.

    Raises:
        LeftError: the plan's error is larger than that of the code by more than `SLACK`.
    """
    exact = copy.deepcopy(module).double()
    with torch.no_grad():
        for shift in (0.0, 3.0):
            given = [t + shift for t in tensors]
            wanted = call(exact, *(t.double() for t in given))
            scale = float(wanted.abs().max()) or 1.0
            own, planned = call(module, *given), program(module, *given)
            worst = [float((t.double() - wanted).abs().max()) / scale for t in (own, planned)]
            eps = torch.finfo(own.dtype).eps
            if not worst[1] <= SLACK * max(worst[0], eps):
                raise LeftError(f"the plan loses digits (error {worst[1]:.1g} where the code has {worst[0]:.1g})")


def _proved(
    reading: Reading, planned: nn.Module, tensors: Sequence[Tensor], static: Sequence[Sequence[int]]
) -> Verdict:
    """Return the proof that the equation read from the planned code is that of the code as it was.

    Raises:
        LeftError: none is found.
    """
    names = names_of(reading.spec, tuple(tensors), None, Names())
    reason = ""
    # With letters for the lengths that the code fixes first: a sum of ones over an axis is then a letter on both sides.
    for fixed in ((), static) if any(static) else ((),):
        try:
            other = read_as(planned, tuple(tensors), None, names, labels=tuple(reading.spec.inputs), static=fixed)
            verdict = prove(reading.spec, other.spec)
        except PolyattnError as error:
            reason = f"no proof: {str(error).partition(chr(10))[0]}"
            continue
        if verdict and not verdict.renaming:
            return verdict
        reason = f"not proved equal to its plan ({verdict.status})"
    raise LeftError(reason)
