"""Bounds on the error of a layer's output, from the error of its core."""

from __future__ import annotations

from typing import Any

import numpy as np
import opt_einsum
import torch

from polyattn.errors import FittingError
from polyattn.fitting.family import symmetrised
from polyattn.fitting.position_pattern import Layout
from polyattn.fitting.scaling import as_array, finite, normalised

MOST = 2**27
"""Entries of an intermediate above which norms of positions replace the positions."""


def nl_bound(delta: np.ndarray, x: np.ndarray, mean: bool) -> float:
    """Bound one sample (N, C) at NL's positions: the smaller of two unfoldings' norms, times x's and its Gram's."""
    # The layer depends on the symmetric part alone, whose norm is never the larger one.
    delta = symmetrised(delta)
    c, d, f, h = delta.shape
    by_output = np.linalg.norm(delta.reshape(c, d * f * h), 2)
    by_pair = np.linalg.norm(delta.reshape(c * d, f * h), 2)
    # With biases the constant 1 is one more feature of x.
    if d > x.shape[1]:
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
    gram = np.linalg.norm(x.T @ x) / (len(x) if mean else 1)
    return float(min(by_output * np.linalg.norm(x), by_pair * np.linalg.norm(x, 2)) * gram)


def pattern_bound(delta: np.ndarray, layout: Layout, x: np.ndarray) -> float:
    """Bound one sample (*positions, C), at any pattern.

    The difference is the core's unfolding (b, all x's) applied at each output position to Z, the pattern's sum of
    products of x's, so its norm is at most ‖Δ_(b, dfh)‖₂ ‖Z‖. ‖Z‖² is the same sum of products of inner products of
    positions.
    """
    delta = symmetrised(delta, layout.orders)
    largest = np.linalg.norm(delta.reshape(len(delta), -1), 2)
    return float(largest * _norm(layout, x) * _scale(layout, x.shape))


def output_bound(delta: np.ndarray, layout: Layout, x: np.ndarray) -> float:
    """Bound a batch of samples, whose norms add up as squares; see `Factorisation.bound`."""
    x = x.reshape(-1, *x.shape[-len(layout.pattern) - 1 :])
    delta, power = normalised(delta)
    if layout.is_nl and delta.shape[1] > x.shape[-1]:
        # With biases the constant 1 is one more feature of x; beside it, since it does not scale with x.
        x = np.concatenate([x, np.ones((*x.shape[:-1], 1))], -1)
    found: list[tuple[float, int]] = []
    for sample in x:
        rows, k = normalised(sample)
        own = nl_bound(delta, rows, bool(layout.powers)) if layout.is_nl else pattern_bound(delta, layout, rows)
        found.append((own, power + k * layout.degree))
    largest = max((k for own, k in found if own), default=0)
    total = float(np.linalg.norm([np.ldexp(own, k - largest) for own, k in found]))
    with np.errstate(over="ignore", under="ignore"):
        bound = float(np.ldexp(total, largest))
    # A bound below the smallest float is not 0.
    return max(bound, float(np.nextafter(0.0, 1.0))) if total else 0.0


def layer_bound(
    difference: np.ndarray, magnitude: np.ndarray, terms: int, layout: Layout, x: Any, batched: bool | None
) -> float:
    """Bound the error of an output evaluated in floats: that of the core, plus the rounding of both evaluations.

    Sums of products over K indices, in any order, are off by at most γ_K = K u / (1 - K u) times the same sums over
    magnitudes (Higham, 2002, section 3.1), with u the unit roundoff of x's precision, and at least that of float64.

    Args:
        difference: the approximation less the core, the output's mode first.
        magnitude: the sum of the core's magnitudes and those of the factors' products.
        terms: length of all sums over channels and ranks, plus the number of factors.
        x: input, one sample or a batch.
        batched: whether the first axis of x is the batch; None: whichever reading has the larger bound.

    Raises:
        FittingError: `x` is not an input of the layer.
    """
    unit = _unit_roundoff(x)
    rows = finite(as_array(x, "x"), "x")
    found = []
    for samples in _readings(rows, layout, difference.shape, batched):
        # Twice: a planned layer may take the mean out of the map before its sums.
        count = 2 * (terms + int(np.prod(samples.shape[1:-1])) * layout.degree)
        gamma = count * unit / (1 - count * unit) if count * unit < 1 else np.inf
        found.append(
            output_bound(difference, layout, samples) + gamma * output_bound(magnitude, layout, np.abs(samples))
        )
    return max(found)


def _unit_roundoff(x: Any) -> float:
    """Return the unit roundoff of x's precision, float64's for whole numbers."""
    if isinstance(x, torch.Tensor):
        return torch.finfo(x.dtype if x.is_floating_point() else torch.float64).eps / 2
    dtype = np.asarray(x).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else float).eps) / 2


def _readings(x: np.ndarray, layout: Layout, shape: tuple[int, ...], batched: bool | None) -> list[np.ndarray]:
    """Return x as (samples, *positions, C), in each reading that its shape has.

    On a single axis positions are a set, so a map of any number of axes is one sample: its reading as a batch and the
    one as a map are both possible.
    """
    axes, channels = len(layout.pattern), layout.channels(np.empty((shape[0], 0)))
    names = ", ".join(layout.names)
    flat = axes == 1 and layout.blocks == (1,)
    wanted = f"({names}, {channels}) or, as a batch, (B, {names}, {channels})"
    if x.ndim < axes + 1 or x.shape[-1] != channels or not x.size:
        raise FittingError(f"`x` has the shape {wanted}; found {x.shape}")
    whole = x.reshape(-1, channels)[None] if flat else x[None]
    found = []
    if batched is not True and (flat or x.ndim == axes + 1):
        found.append(whole)
    if batched is not False and (x.ndim == axes + 2 or (flat and x.ndim > axes + 2)):
        found.append(x.reshape(len(x), -1, channels) if flat else x)
    if not found:
        raise FittingError(f"`x` has the shape {wanted}; found {x.shape} with batched={batched}")
    for samples in found:
        wrong = [n for n, s in zip(samples.shape[1:-1], layout.blocks, strict=True) if n % s]
        if wrong:
            raise FittingError(f"`x` has {wrong[0]} positions on an axis with {layout.blocks} blocks: not a multiple")
    return found


def _scale(layout: Layout, shape: tuple[int, ...]) -> float:
    sizes = dict(zip(layout.names, shape, strict=False))
    return float(np.prod([float(sizes[size]) ** e for size, e in layout.powers]))


def _norm(layout: Layout, x: np.ndarray) -> float:
    axes = len(layout.pattern)
    inner = [n // s for n, s in zip(x.shape, layout.blocks, strict=False)]
    blocks = x.reshape([n for s, u in zip(layout.blocks, inner, strict=True) for n in (s, u)] + [x.shape[-1]])
    blocks = blocks.transpose([*range(1, 2 * axes, 2), *range(0, 2 * axes, 2), 2 * axes])  # places, blocks, channel
    copies = 1.0
    for k in layout.pooled[0]:
        copies *= layout.blocks[k]  # the output's blocks that its weights do not have are all alike
    if layout.degree == 0:
        return float(np.sqrt(copies * np.prod(inner)))
    operands, once = [], []
    for mode in range(1, layout.modes):
        # Pooled blocks have equal weights, so their x's are summed first.
        own = blocks.sum(tuple(axes + k for k in layout.pooled[mode] if layout.blocks[k] > 1))
        rows = own.reshape(int(np.prod(inner)), -1)
        places = [(k, axis[mode]) for k, axis in enumerate(layout.pattern)]
        first = [_index(k, c, layout, 0) for k, c in places]
        second = [_index(k, c, layout, 1) for k, c in places]
        # The inner products of all pairs of positions stand for the two copies of Z in ‖Z‖².
        operands += [(rows @ rows.T).reshape(*inner, *inner), [*first, *second]]
        once += [np.linalg.norm(rows, axis=1).reshape(inner), first]
    free = np.prod([u for k, u in enumerate(inner) if 0 not in layout.pattern[k][1:]])  # places that no x is tied to
    _, path = opt_einsum.contract_path(*_without_twins(operands), [], optimize="greedy")
    # The exact norm, as long as its largest intermediate fits into memory.
    if path.largest_intermediate <= MOST:
        square = float(opt_einsum.contract(*_without_twins(operands), [], optimize="greedy"))
        # Rounding may leave a small negative number.
        return float(np.sqrt(max(square, 0.0) * copies * free))
    # Otherwise the triangle inequality: norms of positions instead of their inner products, a larger bound.
    output = sorted(
        {i for indices in once[1::2] for i in indices if i in {_index(k, 0, layout, 0) for k in range(axes)}}
    )
    return float(np.linalg.norm(opt_einsum.contract(*once, output)) * np.sqrt(copies * free))


def _index(axis: int, group: int, layout: Layout, copy: int) -> int:
    """Number the index of a place: one for the output's in both copies, one in each copy for a summed place."""
    number = (axis * layout.modes + group) * 2
    return number if group == 0 else number + copy


def _without_twins(operands: list) -> list:
    """Remove repeated indices from operands: the inner product of a place with itself is a diagonal."""
    found = []
    for array, indices in zip(operands[::2], operands[1::2], strict=True):
        kept = list(dict.fromkeys(indices))
        found += [array if len(kept) == len(indices) else np.einsum(array, indices, kept), kept]
    return found
