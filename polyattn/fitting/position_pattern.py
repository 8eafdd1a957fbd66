"""The positions of a core's x's: its position pattern, its blocks, and the equation of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from polyattn.algebra import NL_PATTERN, Spec
from polyattn.algebra.core import Pattern, exchanges, pattern_text
from polyattn.algebra.monomial import Powers
from polyattn.errors import FittingError
from polyattn.fitting.family import Orders, Weight

AXES = {1: ("N",), 2: ("H", "W"), 3: ("T", "H", "W")}


@dataclass(frozen=True)
class Layout:
    """The positions of a core's modes.

    Attributes:
        pattern: the tied positions, on each axis.
        blocks: number of blocks with weights of their own on each axis; 1 if all positions are alike. A mode of the
            core is then (block on each axis, channel).
        pooled: for each mode, the output's first, the axes along whose blocks its weights are constant: its part of the
            core does not have such blocks.
        powers: factors of the core as powers of sizes, such as (("N", -1),) for a mean.
    """

    pattern: Pattern = NL_PATTERN
    blocks: tuple[int, ...] = (1,)
    pooled: tuple[tuple[int, ...], ...] = ((), (), (), ())
    powers: Powers = ()

    @property
    def modes(self) -> int:
        return len(self.pattern[0])

    @property
    def degree(self) -> int:
        return self.modes - 1

    @property
    def is_nl(self) -> bool:
        """Test if these are NL's positions, with or without a mean, as in the catalogue's families."""
        return self.pattern == NL_PATTERN and self.blocks == (1,) and self.powers in ((), (("N", -1),))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sizes of the axes of positions.

        Raises:
            FittingError: more than three axes, or a power of an unknown size.
        """
        names = AXES.get(len(self.pattern))
        if names is None:
            raise FittingError(f"patterns are written for one to three axes of positions; found {len(self.pattern)}")
        other = [size for size, _ in self.powers if size not in names]
        if other:
            raise FittingError(
                f"the core is multiplied by a power of {other[0]}; name the sizes of positions {', '.join(names)}"
            )
        return names

    @property
    def orders(self) -> Orders:
        """Return the permutations of the x's that preserve the pattern and the pooling, the identity first."""
        own = tuple(range(self.degree))
        found = [o for o in exchanges(self.pattern) if all(self.pooled[o[k] + 1] == self.pooled[k + 1] for k in own)]
        return (own, *(tuple(o) for o in found if tuple(o) != own))

    def split(self, mode: int) -> list[int]:
        """Return the axes for whose blocks a mode has weights."""
        return [k for k, s in enumerate(self.blocks) if s > 1 and k not in self.pooled[mode]]

    def width(self, mode: int) -> int:
        """Count the blocks for which a mode has weights."""
        return prod(self.blocks[k] for k in self.split(mode))

    def channels(self, core: np.ndarray) -> int:
        return core.shape[0] // self.width(0)

    def __str__(self) -> str:
        split = "".join(f", axis {k} in {s} blocks" for k, s in enumerate(self.blocks) if s > 1)
        return f"{pattern_text(self.pattern)}{split}"


def arrays(
    layout: Layout, channels: int, weights: Sequence[Weight], factors: Sequence[Tensor], suffix: str = ""
) -> dict[str, np.ndarray]:
    """Return the factors as parameters, with a slot for each axis of blocks."""
    found = {}
    for (name, slots), factor in zip(weights, factors, strict=True):
        shape: list[int] = []
        for slot, size in zip(slots, factor.shape, strict=True):
            own = [*(layout.blocks[k] for k in layout.split(slot)), channels] if isinstance(slot, int) else [size]
            shape += own
        found[name + suffix] = np.ascontiguousarray(factor.numpy()).reshape(shape)
    return found


def equation(terms: Sequence[tuple[Layout, Sequence[Weight], dict[str, int], str]]) -> Spec:
    """Write the sum of terms, each the product of its parameters with x at the positions of its pattern.

    Args:
        terms: layout, parameters, the numbers of their ranks' indices, and the suffix of their names.

    Raises:
        FittingError: the terms differ in their axes or blocks.
    """
    blocks = terms[0][0].blocks
    if any(layout.blocks != blocks for layout, *_ in terms):
        raise FittingError("the terms of a sum have one number of axes and of blocks on each")
    names, modes = terms[0][0].names, max(layout.modes for layout, *_ in terms)
    lines = [f"x[{','.join(names)},C]"]
    lines += [f"where {n} = {s}*{n}1" for n, s in zip(names, blocks, strict=True) if s > 1]
    lines += [f"where {', '.join(f'c{m}' for m in range(modes))} : C"]
    # An output that no x is tied to is the same at all places of the axis.
    lines += [
        f"where p{k} : {name}{'1' if size > 1 else ''}"
        for k, (name, size) in enumerate(zip(names, blocks, strict=True))
        if not any(layout.pattern[k][0] in layout.pattern[k][1:] for layout, *_ in terms)
    ]
    lines += [f"where {', '.join(f'o{k}_{m}' for m in range(modes))} : {s}" for k, s in enumerate(blocks) if s > 1]
    products = []
    for layout, weights, ranks, suffix in terms:
        lines += [f"where {index}{suffix} : {number}" for index, number in ranks.items()]
        factors = [f"{name}{suffix}[{','.join(_slots(layout, slots, suffix))}]" for name, slots in weights]
        factors += [f"x[{','.join(_places(layout, m))},c{m}]" for m in range(1, layout.modes)]
        products.append(_scale(layout) + "*".join(factors))
    lines.append(f"y[{','.join(_places(terms[0][0], 0))},c0] = {' + '.join(products)}")
    return Spec("\n".join(lines))


def _scale(layout: Layout) -> str:
    if not layout.powers:
        return ""
    assert layout.names
    sizes = [("*" if e > 0 else "/") + size for size, e in layout.powers for _ in range(abs(e))]
    return f"1{''.join(sizes)} * "


def _slots(layout: Layout, slots: Sequence[int | str], suffix: str) -> list[str]:
    found = []
    for slot in slots:
        found += (
            [f"o{k}_{slot}" for k in layout.split(slot)] + [f"c{slot}"] if isinstance(slot, int) else [slot + suffix]
        )
    return found


def _places(layout: Layout, mode: int) -> list[str]:
    """Return the slot of each axis: the place inside a block, with the block in front if there are several."""
    places = []
    for k, (axis, count) in enumerate(zip(layout.pattern, layout.blocks, strict=True)):
        # Places tied to the output's have its letter, all others one of their own group.
        inner = f"p{k}" if axis[mode] == axis[0] else f"q{k}_{axis[mode]}"
        places.append(inner if count == 1 else f"(o{k}_{mode} {inner})")
    return places
