"""Recognising the position pattern of an explicit interaction tensor, as deltas and cores.

A layer that treats all positions alike has an interaction tensor invariant under permutations of the positions. Such
tensors are the sums of (deltas that tie some of the positions) ⊗ (a core over channels), one core for each way to tie
them. The equalities between an entry's positions decide which deltas reach it, so the means of the tensor over like
entries give the cores, by inclusion and exclusion; the rest is the residual. A map has such ties on each axis. In a
layer with weights for each of s blocks of an axis, the place inside a block is an axis of positions like any other, and
the block counts as a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch

from polyattn.algebra import ChannelCore, Spec
from polyattn.algebra.core import growth, pattern_text, standard
from polyattn.errors import BudgetError, FittingError
from polyattn.fitting.family import Weight
from polyattn.fitting.position_pattern import Layout, arrays, equation
from polyattn.fitting.scaling import as_array, finite, normalised, times_power

BUDGET = 2**30


@dataclass(frozen=True, eq=False)
class Recognition:
    """The parts of an explicit interaction tensor.

    Attributes:
        shape: shape of the input: positions on each axis, then channels.
        blocks: number of blocks with weights of their own on each axis of positions; 1 if all positions are alike.
        components: the position patterns with their cores, the largest first. With blocks, the positions are those
            inside a block, and the channels of the cores are (block on each axis, channel), flattened.
        residual: the norm of the rest, relative to the tensor's.
        constant: modes ("y", "x1", ...) and axes along whose blocks the weights are constant: pooled, or broadcast.
    """

    shape: tuple[int, ...]
    blocks: tuple[int, ...]
    components: tuple[ChannelCore, ...]
    residual: float
    constant: tuple[tuple[str, int], ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the number of positions of each axis inside a block."""
        return tuple(n // s for n, s in zip(self.shape[:-1], self.blocks, strict=True))

    def tensor(self) -> np.ndarray:
        """Return the explicit tensor of the components' sum; its x's stand in the components' order."""
        modes = self.components[0].core.ndim
        total = sum(c.tensor(self.lengths) for c in self.components)
        axes = len(self.blocks)
        split = np.reshape(total, (*self.lengths, *self.blocks, self.shape[-1]) * modes)
        width = 2 * axes + 1
        order = [m * width + k for m in range(modes) for k in (*_interleaved(axes), 2 * axes)]
        return split.transpose(order).reshape(self.shape * modes)

    def rebuild(self) -> tuple[Spec, dict[str, np.ndarray]]:
        """Return the layer as a specification, a parameter for each component, and their arrays."""
        return _rebuild(self)

    def __repr__(self) -> str:
        return f"Recognition({self})"

    def __str__(self) -> str:
        split = [f"axis {k} in {s} blocks" for k, s in enumerate(self.blocks) if s > 1]
        what = "; plus ".join(str(c) for c in self.components) or "nothing"
        still = [f"{mode} along axis {axis}" for mode, axis in self.constant]
        constant = f", constant over {', '.join(still)}" if still else ""
        return f"{what}{' with ' + ', '.join(split) if split else ''}{constant}, residual {self.residual:.2g}"


def recognise(tensor: Any, axes: int = 2, *, tolerance: float = 1e-8) -> Recognition:
    """Find the deltas between positions and the channel cores of an explicit interaction tensor.

    Args:
        tensor: W of Poly-NL, Eq. 5: the output's axes, then the input's for each x; order 8 for (N, C) at degree 3.
        axes: number of axes of the input, the channels included: 2 for x[N,C], 3 for x[H,W,C].
        tolerance: the relative residual up to which a pattern is accepted, and below which a component is dropped.

    Returns:
        The first patterns that fit, those without blocks first, then those with the fewest blocks. Weights for each
        single position count as a pattern only if the tensor is constant along some of them, as for a pooled x.

    Raises:
        FittingError: none of the patterns fits; the message has the share of the tensor that the nearest ones leave.
            Or entries are not finite, the tensor is zero, or its shape is not one of an interaction tensor.
        BudgetError: the tensor is larger than 1 GiB.

    >>> import numpy as np
    >>> from polyattn import catalog
    >>> w = catalog.nl().interaction_tensor({"N": 3, "C": 2}, {"wf": np.eye(2), "wg": np.eye(2)})
    >>> print(recognise(w))
    δ[y,x1] δ[x2,x3] ⊗ core of shape 2 x 2 x 2 x 2, residual ...
    """
    w = as_array(tensor, "tensor")
    shape = _checked(w, axes)
    if not w.any():
        raise FittingError("the tensor is zero: it has no pattern")
    w, scale = normalised(w)
    norm = float(np.linalg.norm(w))
    # Fewest blocks first: the coarsest pattern that fits is the one with the fewest weights.
    choices = product(*([s for s in range(1, n + 1) if n % s == 0] for n in shape[:-1]))
    ordered = sorted(choices, key=lambda blocks: (prod(blocks), blocks))
    left: list[tuple[float, tuple[int, ...], str]] = []
    for blocks in ordered:
        cores, residual = _components(w, shape, blocks)
        kept, residual = _kept(cores, residual, norm, tolerance, shape, blocks)
        # Weights for every position fit any tensor, so they say something only if some are equal.
        weights_everywhere = blocks == shape[:-1] and prod(blocks) > 1
        constant = _constant(kept[0], shape, blocks) if weights_everywhere else ()
        if residual <= tolerance and (not weights_everywhere or constant):
            scaled = tuple(ChannelCore(c.pattern, times_power(c.core, scale)) for c in kept)
            return Recognition(shape, blocks, scaled, residual, constant)
        if not weights_everywhere:
            nearest = pattern_text(kept[0].pattern) if kept else "nothing"
            left.append((residual, blocks, nearest))
    nearest = "; ".join(
        f"{'positions alike' if prod(b) == 1 else f'blocks {b}'} leave {100 * r:.3g} % of its norm (largest: {p})"
        for r, b, p in sorted(left)[:3]
    )
    raise FittingError(
        f"the tensor of shape {w.shape} has none of the known patterns, and weights for single positions without any "
        f"that it does not depend on: {nearest}"
    )


def _checked(w: np.ndarray, axes: int) -> tuple[int, ...]:
    if axes < 2 or w.ndim < axes or w.ndim % axes or w.shape != w.shape[:axes] * (w.ndim // axes):
        raise FittingError(
            f"an interaction tensor of inputs with {axes} axes has their shape once more than its degree (four times "
            f"at 3); found order {w.ndim}, shape {w.shape}"
        )
    if w.size * 8 > BUDGET:
        raise BudgetError(
            f"a tensor of {w.size:,} entries would need {w.size * 8 / 2**30:.3g} GiB; the budget is 1 GiB"
        )
    finite(w, "tensor")
    return tuple(map(int, w.shape[:axes]))


def _interleaved(axes: int) -> list[int]:
    """Return the order from (inner..., outer...) to (outer, inner) of each axis."""
    return [k for axis in range(axes) for k in (axes + axis, axis)]


@lru_cache(maxsize=64)
def _ties(modes: int, length: int) -> tuple[tuple[tuple[int, ...], ...], np.ndarray, np.ndarray]:
    """Return the partitions of `modes` positions, the averages over each, and the reach of the deltas."""
    kinds = [growth(positions) for positions in np.ndindex(*(length,) * modes)]
    patterns = tuple(sorted(set(kinds)))
    members = np.array([[kind == pattern for kind in kinds] for pattern in patterns], dtype=float)
    averages = members / members.sum(1, keepdims=True)
    reach = np.array([[_refines(fine, coarse) for fine in patterns] for coarse in patterns], dtype=float)
    # Inclusion and exclusion: an entry of a coarse kind is reached by the deltas of all finer ones.
    return patterns, np.linalg.solve(reach, averages), members.T @ reach


def _refines(fine: tuple[int, ...], coarse: tuple[int, ...]) -> bool:
    """Test if the second partition ties all positions that the first one ties."""
    return len(set(zip(fine, coarse, strict=True))) == len(set(fine))


def _components(w: np.ndarray, shape: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[list, float]:
    """Return each pattern with its core (of all modes' blocks and channels), and the norm of the rest."""
    axes, modes = len(blocks), w.ndim // len(shape)
    inner = tuple(n // s for n, s in zip(shape[:-1], blocks, strict=True))
    slots = [n for s, u in zip(blocks, inner, strict=True) for n in (s, u)]
    split = w.astype(float).reshape([*slots, shape[-1]] * modes)
    width = 2 * axes + 1
    places = [[m * width + 2 * k + 1 for m in range(modes)] for k in range(axes)]
    rest = [m * width + j for m in range(modes) for j in (*range(0, 2 * axes, 2), 2 * axes)]
    flat = split.transpose([*(p for axis in places for p in axis), *rest])
    channels = prod(blocks) * shape[-1]
    flat = flat.reshape([*(u**modes for u in inner), channels**modes])
    # Axes of positions are independent, so each is solved by itself.
    ties = [_ties(modes, u) for u in inner]
    cores, back = flat, None
    for k, (_, solve, _) in enumerate(ties):
        cores = np.moveaxis(np.tensordot(solve, cores, (1, k)), 0, k)
    back = cores
    for k, (_, _, spread) in enumerate(ties):
        back = np.moveaxis(np.tensordot(spread, back, (1, k)), 0, k)
    found: dict[tuple, np.ndarray] = {}
    for which in product(*(range(len(t[0])) for t in ties)):
        pattern = tuple(ties[k][0][i] for k, i in enumerate(which))
        key, core = standard(pattern, cores[which].reshape((channels,) * modes))
        # Patterns that differ in the order of the x's are one layer; their cores add up.
        found[key] = found[key] + core if key in found else core
    return list(found.items()), float(np.linalg.norm(flat - back))


def _kept(
    cores: list, residual: float, norm: float, tolerance: float, shape: tuple[int, ...], blocks: tuple[int, ...]
) -> tuple[list[ChannelCore], float]:
    """Return the components above the tolerance, the largest first, and the relative residual of the rest."""
    inner = [n // s for n, s in zip(shape[:-1], blocks, strict=True)]
    sized = []
    for pattern, core in cores:
        # The norm of the explicit tensor: each core occurs once for every assignment of its free positions.
        entries = prod(u ** (max(axis) + 1) for u, axis in zip(inner, pattern, strict=True))
        sized.append((float(np.linalg.norm(core)) * entries**0.5, pattern, core))
    sized.sort(key=lambda s: (-s[0], s[1]))
    small = [size for size, _, _ in sized if size <= tolerance * norm]
    kept = [ChannelCore(p, c) for size, p, c in sized if size > tolerance * norm]
    total = (residual**2 + sum(s**2 for s in small)) ** 0.5 / norm
    return kept, total


def _constant(core: ChannelCore, shape: tuple[int, ...], blocks: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Return the modes and axes along whose blocks a core is constant."""
    modes, width = core.core.ndim, len(blocks) + 1
    array = core.core.reshape((*blocks, shape[-1]) * modes)
    scale = np.abs(array).max()
    found = []
    for mode in range(modes):
        for axis, count in enumerate(blocks):
            moved = np.moveaxis(array, mode * width + axis, 0)
            if count > 1 and np.abs(moved - moved[:1]).max() <= 1e-9 * scale:
                found.append(("y" if mode == 0 else f"x{mode}", axis))
    return tuple(found)


def _rebuild(found: Recognition) -> tuple[Spec, dict[str, np.ndarray]]:
    terms, parameters = [], {}
    for number, component in enumerate(found.components):
        modes = component.core.ndim
        layout = Layout(component.pattern, found.blocks, ((),) * modes)
        weights: list[Weight] = [("core", tuple(range(modes)))]
        terms.append((layout, weights, {}, str(number)))
        core = torch.from_numpy(np.ascontiguousarray(component.core))
        parameters |= arrays(layout, found.shape[-1], weights, [core], str(number))
    return equation(terms), parameters
