"""Matching: the selection of the patterns found in an evaluation graph to lower to fused kernels.

With "auto", a kernel is selected if the roofline predicts a gain over the steps it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from polyattn.errors import SizeError
from polyattn.kernels.runtime import has_triton
from polyattn.lowering.devices import calibrated, kind
from polyattn.lowering.fusion import Fusion
from polyattn.lowering.patterns import Matcher
from polyattn.planning import Apply, Device, Graph
from polyattn.planning.graph import ITEMSIZE

Kernels = tuple[str, ...] | Device
"""The kernels to lower with: those of these names wherever they apply, or any that pays on the device."""

NAMES = (
    "attention",
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

EVERYWHERE = ("attention",)
"""Kernels made of torch's own operators, which "auto" takes on every device."""
LEAST_GAIN = 1.05
"""Least predicted ratio of the replaced steps' time to the kernel's."""
TUNED = ("cross_gram",)
"""Kernels selected even without a predicted gain: their tuning measures torch's own product beside them and chooses the
faster one. The roofline counts the same for both, so it cannot tell."""


@lru_cache(maxsize=1024)
def fusions(graph: Graph, needed: frozenset[int], chosen: Kernels) -> dict[int, Fusion]:
    """Return the kernels of a lowered graph, by the node whose value each computes.

    Args:
        graph: an evaluation graph.
        needed: values requested besides its outputs; no kernel makes them unnecessary.
        chosen: names of kernels, or the device on which they have to pay.
    """
    softmax = any(isinstance(node, Apply) and node.function == "softmax" for node in graph.nodes)
    if chosen == () or (chosen == EVERYWHERE and not softmax):
        return {}
    taken: dict[int, Fusion] = {}
    gone: set[int] = set()
    candidates = list(Matcher(graph, needed).found())
    # Greedy: kernels that absorb most steps first, since two kernels cannot share a step.
    for fusion in sorted(candidates, key=lambda f: (-len(f.absorbed), f.value)):
        if not (pays(fusion, graph, chosen) if isinstance(chosen, Device) else fusion.kernel in chosen):
            continue
        if {fusion.value, *fusion.absorbed} & gone or fusion.absorbed & set(taken):
            continue
        taken[fusion.value] = fusion
        gone |= {fusion.value, *fusion.absorbed}
    return _without_masks(graph, needed, taken)


def _without_masks(graph: Graph, needed: frozenset[int], taken: dict[int, Fusion]) -> dict[int, Fusion]:
    """Return the kernels with the steps absorbed that only made masks for them, of one kernel or of several."""
    read = needed | {o.value for o in graph.outputs}
    inside = {k for fusion in taken.values() for k in fusion.absorbed}
    readers: dict[int, set[int]] = {}
    for k, node in enumerate(graph.nodes):
        for operand in node.operands:
            readers.setdefault(operand.value, set()).add(k)
    for k in sorted({k for fusion in taken.values() for k in fusion.spared}, reverse=True):
        if k not in read and readers[k] <= inside:
            inside.add(k)
            first = next(fusion for fusion in taken.values() if k in fusion.spared)
            taken[first.value] = replace(first, absorbed=first.absorbed | {k})
    return taken


def seconds(graph: Graph, taken: Mapping[int, Fusion], device: Device) -> float:
    """Estimate the time of a graph with kernels by the roofline, in seconds."""
    fused = {k for fusion in taken.values() for k in (fusion.value, *fusion.absorbed)}
    steps = sum(device.step(graph, node) for k, node in enumerate(graph.nodes) if k not in fused)
    return steps + sum(_seconds(fusion, device) for fusion in taken.values())


def _seconds(fusion: Fusion, device: Device) -> float:
    entries_per_second = device.bytes_per_second / device.itemsize
    # A cost counts bytes in float32; entries of the device's own width move faster or slower.
    return fusion.cost.seconds(device.macs_per_second, ITEMSIZE * entries_per_second) + device.step_seconds


def by_step(taken: Mapping[int, Fusion], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (step, kernel) for each kernel's result, and (step, "in result") for each absorbed step."""
    for k, fusion in taken.items():
        yield names[k], fusion.kernel
        yield from ((names[i], f"in {names[k]}") for i in fusion.absorbed)


def pays(fusion: Fusion, graph: Graph, device: Device) -> bool:
    """Test if the roofline predicts a kernel to be faster than the steps in its place."""
    replaced = sum(device.step(graph, graph.nodes[k]) for k in (fusion.value, *fusion.absorbed))
    return replaced >= (1.0 if fusion.kernel in TUNED else LEAST_GAIN) * _seconds(fusion, device)


def as_choice(kernels: str | Sequence[str], device: str | Device) -> Kernels:
    """Return the choice as a hashable value, for caches.

    Args:
        kernels: "auto", "off", a name or names.
        device: the device or its type; "auto" takes those that pay by its calibration on "cuda" with Triton, and
            `attention` elsewhere.

    Raises:
        SizeError: unknown name of a kernel.
    """
    if kernels == "auto":
        model = device if isinstance(device, Device) else calibrated(kind(device))
        return model if model.kind == "cuda" and has_triton() else EVERYWHERE
    if kernels == "off":
        return ()
    names = (kernels,) if isinstance(kernels, str) else tuple(kernels)
    for name in names:
        if name not in NAMES:
            raise SizeError(f"there is no kernel {name!r}; there are {', '.join(NAMES)}, and 'auto' and 'off'")
    return names
