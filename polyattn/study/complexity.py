"""`complexity`: layers studied over sweeps of their sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.errors import SizeError
from polyattn.lowering import calibrated
from polyattn.lowering.planner import kernel_choice
from polyattn.planning import Device, Plan
from polyattn.study.orders import ORDERS, ordered_plan
from polyattn.study.sizes import points
from polyattn.study.study import Case, Study

Specs = Spec | str | Any | Sequence[Spec | str | Any] | Mapping[str, Spec | str | Any]
OBJECTIVES = ("forward", "training")


def complexity(
    specs: Specs,
    objective: str = "forward",
    *,
    orders: Sequence[str] = ORDERS,
    cost: str = "roofline",
    device: str | Device = "cpu",
    measure: bool = False,
    seconds: float = 0.5,
    memory_limit: int | None = None,
    each: Callable[[Case], None] | None = None,
    **sizes: int | str | Iterable[int],
) -> Study:
    """Count the costs of layers from their plans at every point of a sweep of sizes.

    Args:
        specs: a specification, its text, a name of the catalogue or a reading of code; several; or several by name.
        objective: "forward" for one evaluation, "training" for an evaluation and a backward pass.
        orders: orders of contraction to compare: "as written", "opt_einsum", "planned".
        cost, device: the planner's cost model, and the device whose roofline predicts times; see `polyattn.plan`.
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
    _check_device(measure, device)
    places, varied = points(sizes)
    model = calibrated(device) if isinstance(device, str) else device
    cases: list[Case] = []
    for point in places:
        here = [
            _case(name, spec, order, point, objective, cost, model, device, memory_limit)
            for name, spec in layers.items()
            for order in orders
        ]
        if measure:
            # Imported on request only: it needs torch.
            from polyattn.study.timing import medians

            assert isinstance(device, str)
            # Plans of one point run in turn; see `medians`.
            times = medians([c.plan for c in here], objective, device, seconds)
            here = [replace(c, measured_seconds=t) for c, t in zip(here, times, strict=True)]
        for case in here:
            cases.append(case)
            if each is not None:
                each(case)
    return Study(objective, tuple(layers.items()), varied, tuple(cases), model)


def named(specs: Specs) -> dict[str, Spec]:
    """Return the specifications by name: the catalogue's name for its entries, else a number."""
    if isinstance(specs, Mapping):
        return {str(name): _spec(spec) for name, spec in specs.items()}
    several = [specs] if isinstance(specs, str | Spec) or hasattr(specs, "spec") else list(specs)
    found: dict[str, Spec] = {}
    asked = {given for given in several if isinstance(given, str) and given in catalog.names()}
    # Specifications compare by content, so an entry is recognised even when it was passed as an object. To know all
    # entries takes a second, which names do not need.
    entries = asked if len(asked) == len(several) else catalog.names()
    known = {catalog.get(name): name for name in entries}
    for spec in map(_spec, several):
        name = known.get(spec) or f"layer {len(found) + 1}"
        if name in found and found[name] == spec:
            continue
        found[name] = spec
    if not found:
        raise SizeError("a study needs a specification at least")
    return found


def _spec(spec: Spec | str | Any) -> Spec:
    if isinstance(spec, str):
        return Spec(spec) if "[" in spec else catalog.get(spec)
    # A reading of code has a specification.
    return getattr(spec, "spec", spec)


def _check_names(layers: Mapping[str, Spec], sizes: Mapping[str, Any]) -> None:
    known = dict.fromkeys(n for spec in layers.values() for n in spec.sizes.names)
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
) -> Case:
    if "B" in spec.sizes.names:
        raise SizeError(f"{name}: a study calls the batch B: give the size B of the specification another name")
    # Layers of one study may have different sizes; each plan gets its own.
    given = {n: number for n, number in point.items() if n == "B" or n in spec.sizes.names}
    try:
        # Candidates are timed on a device of this machine, which a set of figures does not name.
        here = given_device if cost == "measured" else device
        plan = ordered_plan(spec, order, given, objective, cost=cost, device=here, memory_limit=memory_limit)
    except SizeError as error:
        raise SizeError(f"{name}: {error}") from None
    predicted = _predicted(plan, objective, device)
    return Case(name, order, tuple(point.items()), plan, objective, predicted, device=device)


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
