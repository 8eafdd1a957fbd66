"""Matching: which of the patterns that are found in an evaluation graph are lowered to fused kernels.

Where the choice is "auto", a kernel is taken where the roofline says that it is faster than the steps that it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from polyattn.errors import SizeError
from polyattn.kernels.runtime import has_triton
from polyattn.lowering.devices import calibrated, kind
from polyattn.lowering.fusion import Fusion
from polyattn.lowering.patterns import Matcher
from polyattn.planning import Device, Graph
from polyattn.planning.graph import ITEMSIZE

Kernels = tuple[str, ...] | Device
"""Which kernels to lower with: those of these names wherever they apply, or any that pays on the device."""

NAMES = (
    "bilinear",
    "cross_gram",
    "gram",
    "hadamard_mean",
    "linear_context",
    "linear_query",
    "project",
    "project_pair",
    "projected_context",
    "projected_query",
)

LEAST_GAIN = 1.05
"""A kernel is taken where the steps that it replaces take at least this much longer."""
TUNED = ("cross_gram",)
"""Kernels taken wherever the roofline has them no slower: their tuning measures torch's own product beside them and
takes that where it is faster. The roofline counts the same for both, so it cannot tell."""


@lru_cache(maxsize=1024)
def fusions(graph: Graph, needed: frozenset[int], chosen: Kernels) -> dict[int, Fusion]:
    """The kernels that a graph is lowered with, by the node whose value each makes.

    Args:
        graph: an evaluation graph.
        needed: values that are asked for besides its outputs; no kernel makes them unnecessary.
        chosen: names of kernels, or the device on which they have to pay.
    """
    if chosen == ():
        return {}
    taken: dict[int, Fusion] = {}
    gone: set[int] = set()
    candidates = list(Matcher(graph, needed).found())
    for fusion in sorted(candidates, key=lambda f: (-len(f.absorbed), f.value)):
        if not (pays(fusion, graph, chosen) if isinstance(chosen, Device) else fusion.kernel in chosen):
            continue
        if {fusion.value, *fusion.absorbed} & gone or fusion.absorbed & set(taken):
            continue
        taken[fusion.value] = fusion
        gone |= {fusion.value, *fusion.absorbed}
    return taken


def seconds(graph: Graph, taken: Mapping[int, Fusion], device: Device) -> float:
    """The roofline's time of a graph of whose steps kernels make some."""
    fused = {k for fusion in taken.values() for k in (fusion.value, *fusion.absorbed)}
    steps = sum(device.step(graph, node) for k, node in enumerate(graph.nodes) if k not in fused)
    return steps + sum(_seconds(fusion, device) for fusion in taken.values())


def _seconds(fusion: Fusion, device: Device) -> float:
    entries_per_second = device.bytes_per_second / device.itemsize
    return fusion.cost.seconds(device.macs_per_second, ITEMSIZE * entries_per_second) + device.step_seconds


def by_step(taken: Mapping[int, Fusion], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """For the steps that a kernel makes its name, and for those inside one the step that it makes."""
    for k, fusion in taken.items():
        yield names[k], fusion.kernel
        yield from ((names[i], f"in {names[k]}") for i in fusion.absorbed)


def pays(fusion: Fusion, graph: Graph, device: Device) -> bool:
    """Whether the roofline's time of a kernel is less than that of the steps in its place."""
    replaced = sum(device.step(graph, graph.nodes[k]) for k in (fusion.value, *fusion.absorbed))
    return replaced >= (1.0 if fusion.kernel in TUNED else LEAST_GAIN) * _seconds(fusion, device)


def as_choice(kernels: str | Sequence[str], device: str | Device) -> Kernels:
    """The choice as a value that caches can keep.

    Args:
        kernels: "auto", "off", a name or names.
        device: the device or its type; "auto" takes kernels on "cuda" with Triton only, by its calibration.

    Raises:
        SizeError: there is no such kernel.
    """
    if kernels == "auto":
        model = device if isinstance(device, Device) else calibrated(kind(device))
        return model if model.kind == "cuda" and has_triton() else ()
    if kernels == "off":
        return ()
    names = (kernels,) if isinstance(kernels, str) else tuple(kernels)
    for name in names:
        if name not in NAMES:
            raise SizeError(f"there is no kernel {name!r}; there are {', '.join(NAMES)}, and 'auto' and 'off'")
    return names
