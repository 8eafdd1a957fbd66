"""Settings that functions of this stage share: how a fit runs, and for what sizes the layer is planned."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

from polyattn.errors import FittingError


class FitOptions(TypedDict, total=False):
    """Settings of the algorithms.

    Attributes:
        starts: number of initial values, where an algorithm depends on them.
        iterations: limit on the steps from each.
        seed: seed of the initial values.
        progress: whether to show a progress bar; by default if the error stream is a terminal.
    """

    starts: int
    iterations: int
    seed: int
    progress: bool | None


class Options(FitOptions, total=False):
    """Settings of `factorise`: those of the algorithm, and those of the layer's plan.

    Attributes:
        sizes: sizes of positions and B in the plan, by default 784 positions, 28 on each axis of a map, and 1.
        objective: objective of the plan.
    """

    sizes: Mapping[str, int] | None
    objective: str


class CompressOptions(FitOptions, total=False):
    """Settings of `compress`: those of the decompositions, and those of the fits to the data.

    Attributes:
        steps: limit on the iterations of L-BFGS on activations, by default 100; 0 leaves the decompositions unchanged.
        fit_to: "layer" fits the trained layer's outputs; "network" continues with the outputs of the whole model, in
            evaluation mode and with all its other parameters fixed, and measures the error there: later layers may
            depend on a small part of the layer's output.
        ranks: further candidates by family.
        truncation: for comparison, by default also the layer with similarity and value cut to the rank of each budget
            by plain singular value decompositions, without weights and without fine-tuning.
    """

    steps: int
    fit_to: str
    ranks: Mapping[str, Any] | None
    truncation: bool


def filled(given: Mapping[str, Any], defaults: Mapping[str, Any], function: str) -> dict[str, Any]:
    """Return all settings: those given, the others by default.

    Raises:
        FittingError: a name is unknown.
    """
    for name in given:
        if name not in defaults:
            near = get_close_matches(name, list(defaults), 1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise FittingError(
                f"`{name}` is not an argument of `{function}`; its settings are {', '.join(defaults)}{hint}"
            )
    return {**defaults, **given}
