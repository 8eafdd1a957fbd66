"""Matching: which of the patterns that are found in an evaluation graph are lowered to fused kernels.

Where the choice is "auto", a kernel is taken where the roofline says that it is faster than the steps that it replaces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from polyattn.errors import SizeError
from polyattn.kernels.runtime import has_triton
from polyattn.lowering.patterns import Fusion, Matcher
from polyattn.planning import DEVICES, Graph

Kernels = str | tuple[str, ...]
"""Which kernels to lower with: "auto", "off", or names."""

NAMES = ("bilinear", "gram", "hadamard_mean", "linear_context", "linear_query", "project", "project_pair")

LEAST_GAIN = 1.05
"""A kernel is taken where the steps that it replaces take at least this much longer."""


@lru_cache(maxsize=1024)
def fusions(graph: Graph, needed: frozenset[int], chosen: Kernels, device: str) -> dict[int, Fusion]:
    """The kernels that a graph is lowered with, by the node whose value each makes.

    Args:
        graph: an evaluation graph.
        needed: values that are asked for besides its outputs; no kernel makes them unnecessary.
        chosen: "auto", "off", or names of kernels, which are then taken wherever they apply.
        device: the type of the device; "auto" takes kernels on "cuda" only.

    Raises:
        SizeError: there is no such kernel.
    """
    names = checked(chosen)
    if names is None and (device != "cuda" or not has_triton()):
        return {}
    taken: dict[int, Fusion] = {}
    gone: set[int] = set()
    candidates = list(Matcher(graph, needed).found())
    for fusion in sorted(candidates, key=lambda f: (-len(f.absorbed), f.value)):
        if names is not None and fusion.kernel not in names:
            continue
        if names is None and not pays(fusion, graph, device):
            continue
        if {fusion.value, *fusion.absorbed} & gone or fusion.absorbed & set(taken):
            continue
        taken[fusion.value] = fusion
        gone |= {fusion.value, *fusion.absorbed}
    return taken


def pays(fusion: Fusion, graph: Graph, device: str) -> bool:
    """Whether the roofline's time of a kernel is less than that of the steps in its place."""
    model = DEVICES[device]
    replaced = sum(model.step(graph, graph.nodes[k]) for k in (fusion.value, *fusion.absorbed))
    mine = fusion.cost.seconds(model.macs_per_second, model.bytes_per_second) + model.step_seconds
    return replaced >= LEAST_GAIN * mine


def checked(chosen: Kernels) -> Collection[str] | None:
    """The names of kernels that are asked for; None where the cost model decides.

    Raises:
        SizeError: there is no such kernel.
    """
    if chosen == "auto":
        return None
    names = () if chosen == "off" else chosen
    if isinstance(names, str):
        names = (names,)
    for name in names:
        if name not in NAMES:
            raise SizeError(f"there is no kernel {name!r}; there are {', '.join(NAMES)}, and 'auto' and 'off'")
    return names


def as_choice(kernels: str | Sequence[str]) -> Kernels:
    """The choice as a value that caches can keep.

    Raises:
        SizeError: there is no such kernel.
    """
    choice = kernels if isinstance(kernels, str) else tuple(kernels)
    checked(choice)
    return choice
