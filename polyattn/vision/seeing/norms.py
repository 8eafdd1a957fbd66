"""What attention adds at each place of an image: the norms of its input, its contribution and its output."""

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
        x: of the block's input X.
        y: of its contribution Y, which is Z without its part of X: Z - αX in blocks with a learnable α, else Z - X.
        z: of its output Z.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]


def norms(model: nn.Module, *arguments: Any, place: str | None = None) -> Norms:
    """The norms ‖X‖, ‖Y‖ and ‖Z‖ of a block in a network, at each position of its feature map.

    Args:
        model: the network; it is run in eval mode and left as it was.
        arguments: its input, (B, C, *spatial).
        place: the submodule that attention was inserted after, or the name of any module that gives the shape it
            gets. Default: the last place with inserted attention.

    Raises:
        InsertError: there is no such place.
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
    return found[-1]
