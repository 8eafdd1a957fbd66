"""`complexity`: layers studied over sweeps of their sizes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import calibrated
from polyattn.lowering.devices import dtype_name
from polyattn.lowering.planner import kernel_choice
from polyattn.planning import Device, Plan
from polyattn.study.orders import ORDERS, ordered_plan
from polyattn.study.sizes import points
from polyattn.study.study import MODULE, Case, ModuleCase, Study

if TYPE_CHECKING:
    from polyattn.study.modules import Baseline

Specs = Spec | str | Any | Sequence[Spec | str | Any] | Mapping[str, Spec | str | Any]
OBJECTIVES = ("forward", "training")
MAPS = ("N", "H", "W", "C")
"""Sizes of a module's input."""


def complexity(
    specs: Specs,
    objective: str = "forward",
    *,
    orders: Sequence[str] = ORDERS,
    cost: str = "roofline",
    device: str | Device = "cpu",
    dtype: str = "float32",
    measure: bool = False,
    seconds: float = 0.5,
    memory_limit: int | None = None,
    each: Callable[[Case], None] | None = None,
    **sizes: int | str | Iterable[int],
) -> Study:
    """Count the costs of layers from their plans at every point of a sweep of sizes.

    Args:
        specs: a specification, its text, a name of the catalogue, a reading of code, or for comparison a module or a
            `Baseline`, counted by the operations that it runs; several; or several by name.
        objective: "forward" for one evaluation, "training" for an evaluation and a backward pass.
        orders: orders of contraction to compare: "as written", "opt_einsum", "planned".
        cost, device: the planner's cost model, and the device whose roofline predicts times; see `polyattn.plan`.
        dtype: dtype of predicted and measured times; bytes are those of float32.
        measure: whether to time every plan as well; runs of all layers and orders at one point are interleaved.
        seconds: approximate limit for the timings of one point.
        memory_limit: limit in bytes for the intermediates of the planned order; see `polyattn.plan`.
        each: called with every case as soon as it is counted.
        sizes: a whole number, several (a sweep), "196:65536" (by doubling), or a product of others as in `R="C/8"`; B
            is the batch, 1 by default. Layers ignore sizes they do not have.

    Returns:
        The study: `.table()`, `.plot()`, `.formulas`.

    Raises:
        SizeError: a size is missing, contradictory or unknown to all layers; an option is unknown.
        SpecError: a text is not a specification.

    >>> study = complexity("poly_nl", N=[64, 4096], C=64, orders=["as written", "planned"])
    >>> [(case.order, dict(case.point)["N"], case.macs) for case in study.cases]
    [('as written', 64, 794624), ('planned', 64, 794624), ('as written', 4096, 50855936), ('planned', 4096, 33824768)]
    >>> study.formulas["poly_nl"][0].macs
    3*B*C**2*N + 2*B*C*N
    """
    if objective not in OBJECTIVES:
        raise SizeError(f"unknown objective {objective!r}; a study has {' or '.join(OBJECTIVES)}")
    for order in orders:
        if order not in ORDERS:
            raise SizeError(f"unknown order {order!r}; there are {', '.join(ORDERS)}")
    layers = named(specs)
    _check_names(layers, sizes)
    # Options are checked before the first plan, which may take seconds.
    dtype_name(dtype)
    _check_device(measure, device)
    places, varied = points(sizes)
    model = calibrated(device, dtype) if isinstance(device, str) else device
    cases: list[Case] = []
    for point in places:
        here = [
            _case(name, spec, order, point, objective, cost, model, device, memory_limit, dtype)
            if isinstance(spec, Spec)
            else _module_case(name, spec, point, objective, model)
            for name, spec in layers.items()
            for order in (orders if isinstance(spec, Spec) else (MODULE,))
        ]
        if measure:
            # Imported on request only: it needs torch.
            from polyattn.study.timing import medians

            assert isinstance(device, str)
            # Plans of one point run in turn; see `medians`.
            calls = [_timed(c, layers[c.layer], objective, device, dtype) for c in here]
            times = medians(calls, device, seconds)
            here = [replace(c, measured_seconds=t) for c, t in zip(here, times, strict=True)]
        for case in here:
            cases.append(case)
            if each is not None:
                each(case)
    return Study(objective, tuple(layers.items()), varied, tuple(cases), model)


def named(specs: Specs) -> dict[str, Spec | Baseline]:
    """Return specifications and modules by name: the catalogue's for its entries, a module's class, else a number."""
    if isinstance(specs, Mapping):
        return {str(name): _spec(spec) for name, spec in specs.items()}
    one = isinstance(specs, str | Spec) or hasattr(specs, "spec") or _is_module(specs)
    given: Any = specs
    several: list[Any] = [given] if one else list(given)
    found: dict[str, Spec | Baseline] = {}
    asked = {name for name in several if isinstance(name, str) and name in catalog.names()}
    # Specifications compare by content, so an entry is recognised even when it was passed as an object. To know all
    # entries takes a second, which names do not need.
    entries = asked if len(asked) == len(several) else catalog.names()
    known = {catalog.get(name): name for name in entries}
    for spec in map(_spec, several):
        own = None if isinstance(spec, Spec) else type(spec.module).__name__
        name = known.get(spec) if isinstance(spec, Spec) else own if own not in (*found, "function") else None
        name = name or f"layer {len(found) + 1}"
        if name in found and found[name] == spec:
            continue
        found[name] = spec
    if not found:
        raise SizeError("a study needs a specification at least")
    return found


def _spec(spec: Spec | str | Any) -> Spec | Baseline:
    if isinstance(spec, str):
        return Spec(spec) if "[" in spec else catalog.get(spec)
    # A reading of code has a specification, and so have layers of `polyattn.nn`.
    found = getattr(spec, "spec", spec)
    if isinstance(found, Spec):
        return found
    if _is_module(found):
        from polyattn.study.modules import Baseline

        return found if isinstance(found, Baseline) else Baseline(found)
    raise SizeError(f"`specs`: a layer is a specification, its text, a name, a reading or a module; found {found!r}")


def _is_module(value: Any) -> bool:
    """Test if a value is a module or a `Baseline`, without the import of torch where there can be none."""
    if "torch" not in sys.modules:
        return False
    from torch import nn

    from polyattn.study.modules import Baseline

    return isinstance(value, nn.Module | Baseline)


def _check_names(layers: Mapping[str, Spec | Baseline], sizes: Mapping[str, Any]) -> None:
    known = dict.fromkeys(
        n for layer in layers.values() for n in (layer.sizes.names if isinstance(layer, Spec) else layer.sizes)
    )
    if not all(isinstance(layer, Spec) for layer in layers.values()):
        known |= dict.fromkeys(MAPS)
    # Sizes that others are made of serve any layer: N="H*W" with H and W of no layer.
    used = {n for value in sizes.values() if isinstance(value, str) for n in re.findall(r"[A-Z]\w*", value)}
    for name in sizes:
        if name != "B" and name not in known and name not in used:
            raise SizeError(f"no layer has a size {name!r}; the sizes are B, {', '.join(known)}")


def _check_device(measure: bool, device: str | Device) -> None:
    """Check that plans can be timed on a device, if `measure` is set."""
    if not measure:
        return
    # A `Device` is a set of figures: there may be no such machine here.
    if not isinstance(device, str):
        raise SizeError('`measure=True` times plans on a device of this machine: give `device="cpu"` or "cuda"')
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SizeError('`measure=True` on `device="cuda"` needs a CUDA device, and this machine has none')


def _case(
    name: str,
    spec: Spec,
    order: str,
    point: Mapping[str, int],
    objective: str,
    cost: str,
    device: Device,
    given_device: str | Device,
    memory_limit: int | None,
    dtype: str,
) -> Case:
    if "B" in spec.sizes.names:
        raise SizeError(f"{name}: a study calls the batch B: give the size B of the specification another name")
    # Layers of one study may have different sizes; each plan gets its own.
    given = {n: number for n, number in point.items() if n == "B" or n in spec.sizes.names}
    try:
        # Candidates are timed on a device of this machine, which a set of figures does not name.
        here = given_device if cost == "measured" else device
        options: dict[str, Any] = {"cost": cost, "device": here, "memory_limit": memory_limit, "dtype": dtype}
        plan = ordered_plan(spec, order, given, objective, **options)
    except SizeError as error:
        raise SizeError(f"{name}: {error}") from None
    predicted = _predicted(plan, objective, device)
    return Case(name, order, tuple(point.items()), plan, objective, predicted, device=device)


def _module_case(name: str, baseline: Baseline, point: Mapping[str, int], objective: str, device: Device) -> Case:
    from polyattn.study.modules import count

    found = count(name, baseline, point, objective, device)
    known: Any = None
    return ModuleCase(
        name, MODULE, tuple(point.items()), known, objective, found.price.seconds, device=device, counted=found
    )


def _timed(case: Case, layer: Spec | Baseline, objective: str, device: str, dtype: str) -> Callable[[], object]:
    """Return the call of a case that is timed."""
    from polyattn.study.timing import call_of

    if isinstance(layer, Spec):
        return call_of(case.plan, objective, device, dtype)
    from polyattn.study.modules import timed_call

    return timed_call(case.layer, layer, dict(case.point), objective, device, dtype)


def _predicted(plan: Plan, objective: str, device: Device) -> float:
    """Predict seconds by the roofline, with kernels where they pay.

    Autograd's backward pass counts as two products for each product.
    """
    kernels = kernel_choice("auto", device, plan.spec)
    if kernels:
        from polyattn.lowering.fused import with_kernels

        return with_kernels(plan, kernels, device)[1]
    forward = device.seconds(plan.graph)
    if objective != "training":
        return forward
    return forward + (2 * forward if plan.backward is None else device.seconds(plan.backward.graph))
