"""The input of `factorise`, as one core and the positions of its x's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from polyattn.algebra import ChannelCore
from polyattn.errors import FittingError
from polyattn.fitting.position_pattern import Layout
from polyattn.fitting.recognise import Recognition, recognise
from polyattn.fitting.scaling import as_array, finite


@dataclass(frozen=True, eq=False)
class Located:
    """A core, the output's mode first, and the positions of its modes."""

    core: np.ndarray
    layout: Layout

    def __repr__(self) -> str:
        return f"Located({self.layout} ⊗ core of shape {' x '.join(map(str, self.core.shape))})"


Given = Located | ChannelCore | Recognition | np.ndarray | Tensor


def taken(given: Given, mean: bool | None) -> Located:
    """Return the core with the output's mode first, and its layout; `mean`: whether it is divided by all positions.

    Raises:
        FittingError: it is not a core of degree 1 or more, not finite, zero, or has several patterns.
    """
    if isinstance(given, Located):
        return given
    if not isinstance(given, ChannelCore | Recognition):
        array = finite(as_array(given, "core"), "core")
        # Order 8 is the interaction tensor of degree 3; all else has to be a core.
        if array.ndim != 8:
            layout = Layout(powers=(("N", -1),) if mean else ())
            c, *inner = array.shape if array.ndim == 4 else (0,)
            if array.ndim != 4 or len({*inner}) != 1 or inner[0] not in (c, c + 1):
                raise FittingError(
                    "a core T[b,d,f,h] has the shape (C, C, C, C), with biases (C, C + 1, C + 1, C + 1), and an "
                    f"interaction tensor order 8, shape (N, C) four times; found shape {array.shape}"
                )
            return Located(_nonzero(array), layout)
        given = recognise(array)
    found = components(given)
    if len(found) != 1:
        raise FittingError(
            f"one pattern is factored at a time, and {len(found)} were found: {given}; "
            "factorise_polynomial takes each of a sum"
        )
    core, layout = found[0].core, found[0].layout
    if layout.degree == 0:
        raise FittingError("a core of degree 0 is a bias: there is nothing to factor")
    return Located(core, layout if mean is None else with_mean(layout, mean))


def components(given: ChannelCore | Recognition) -> list[Located]:
    """Return each pattern's core, output's mode first, without blocks along which its weights are constant."""
    if isinstance(given, ChannelCore):
        axes, modes = len(given.pattern), given.core.ndim
        layout = Layout(given.pattern, (1,) * axes, ((),) * modes, given.powers)
        return [Located(_nonzero(finite(as_array(given.core, "core"), "core")), layout)]
    found = []
    for component in given.components:
        modes, blocks, c = component.core.ndim, given.blocks, given.shape[-1]
        pooled = tuple(
            tuple(axis for mode, axis in given.constant if mode == ("y" if m == 0 else f"x{m}")) for m in range(modes)
        )
        layout = Layout(component.pattern, blocks, pooled, component.powers)
        split = component.core.reshape((*blocks, c) * modes)
        width = len(blocks) + 1
        # Along pooled axes the blocks are alike, so the first stands for all.
        alike = tuple(slice(0, 1) if k in pooled[m] else slice(None) for m in range(modes) for k in range(width))
        found.append(Located(split[alike].reshape([layout.width(m) * c for m in range(modes)]), layout))
    return found


def with_mean(layout: Layout, mean: bool) -> Layout:
    """Return the layout with or without a division by all positions."""
    powers = tuple((name, -1) for name in layout.names) if mean else ()
    return Layout(layout.pattern, layout.blocks, layout.pooled, powers)


def _nonzero(array: np.ndarray) -> np.ndarray:
    if not array.any():
        raise FittingError("the core is zero: there is nothing to factor")
    return array
