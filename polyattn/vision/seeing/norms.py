"""Norms of an attention's input, contribution and output at each position of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from polyattn.errors import InsertError
from polyattn.vision.insert import CHILD, MARK, inserted
from polyattn.vision.trace import run


@dataclass(frozen=True)
class Norms:
    """Norms over the channels, each (B, *spatial), float32 (Poly-NL, Fig. 4).

    Attributes:
        x: norm of the block's input X.
        y: norm of its contribution Y: Z - αX in blocks with a learnable α, else Z - X.
        z: norm of its output Z.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]


def norms(model: nn.Module, *arguments: Any, place: str | None = None) -> Norms:
    """Compute the norms ‖X‖, ‖Y‖ and ‖Z‖ of a block in a network, at each position of its feature map.

    Args:
        model: the network; it runs in eval mode and is restored.
        arguments: its input, (B, C, *spatial).
        place: a submodule with inserted attention, or the name of any module with outputs of its inputs' shape; by
            default the last submodule with inserted attention.

    Raises:
        InsertError: `place` is unknown, never called, or changes the shape.
    """
    places = list(inserted(model))
    if place is None and not places:
        raise InsertError("the model has no inserted attention: name a module with place=")
    name = places[-1] if place is None else place
    modules = dict(model.named_modules())
    if name not in modules:
        raise InsertError(f"the model has no submodule {name!r}; attention was inserted after: {', '.join(places)}")
    target = modules[name]
    block = target.get_submodule(CHILD) if MARK in vars(target) else target
    found: list[Norms] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        if output.shape != x.shape:
            raise InsertError(f"{name!r} gives {tuple(output.shape)} for {tuple(x.shape)}: X and Z need one shape")
        alpha = getattr(module, "alpha", None)
        y = output - (x if alpha is None else alpha * x)
        found.append(Norms(*(t.float().norm(dim=1).cpu().numpy() for t in (x, y, output))))

    run(model, *arguments, hooks={block: look})
    if not found:
        raise InsertError(f"{name!r} is never called as the model runs")
    # A block that runs several times in one pass is shown at its last run.
    return found[-1]
