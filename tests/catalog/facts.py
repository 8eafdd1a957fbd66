"""Facts of a layer as they are found by evaluating it: which axes it mixes, how far, and what leaves it the same."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import torch

import polyattn as pa
from polyattn import catalog


@cache
def numbers(name: str) -> dict[str, int]:
    """Return the numbers of all sizes of an entry, those of digits included."""
    found = catalog.entry(name)
    return dict(found.spec.sizes.solve(dict(found.facts.sizes), found.spec.sizes.names))


def length(size: str, known: dict[str, int]) -> int:
    return int(size) if size.isdigit() else known[size] if size in known else int(eval(size, {}, known))


@cache
def _drawn(name: str, seed: int) -> dict[str, np.ndarray]:
    spec, known, generator = catalog.entry(name).spec, numbers(name), np.random.default_rng(seed)
    shapes = {**spec.inputs, **spec.parameters}
    return {
        tensor: np.asarray(0.7 * generator.normal(size=[length(s, known) for s in shape]))
        for tensor, shape in shapes.items()
    }


def tensors(name: str, seed: int = 3) -> dict[str, np.ndarray]:
    """Return the same random inputs and parameters on each call."""
    return {tensor: values.copy() for tensor, values in _drawn(name, seed).items()}


@cache
def _lowered(name: str) -> Any:
    found = catalog.entry(name)
    return pa.lower(pa.plan(found.spec, dict(found.facts.sizes), "as_written"))


def output(name: str, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the output of one sample, in the author's order."""
    inputs = catalog.entry(name).spec.inputs
    given = [torch.from_numpy(t)[None] if n in inputs else torch.from_numpy(t) for n, t in values.items()]
    with torch.no_grad():
        return _lowered(name)(*given)[0].numpy()


def axes(name: str) -> tuple[str, ...]:
    """Return the sizes of the inputs' slots."""
    return tuple(dict.fromkeys(s for shape in catalog.entry(name).spec.inputs.values() for s in shape))


def equivariant(name: str) -> tuple[str, ...]:
    """Return the axes of the inputs under whose permutation the output goes along or stays."""
    spec, values = catalog.entry(name).spec, tensors(name)
    y, found = output(name, values), []
    for axis in axes(name):
        order = np.roll(np.arange(length(axis, numbers(name))), 1)
        if len(order) > 2:  # neither a rotation nor a reversal
            order[:2] = order[1::-1]

        def permuted(a: np.ndarray, shape: tuple[str, ...], axis: str = axis, order: Any = order) -> np.ndarray:
            for slot, size in enumerate(shape):
                a = np.take(a, order, slot) if size == axis else a
            return a

        moved = output(name, values | {n: permuted(values[n], shape) for n, shape in spec.inputs.items()})
        if np.allclose(moved, permuted(y, spec.output_shape), rtol=1e-8, atol=1e-10):
            found.append(axis)
    return tuple(found)


def symmetric(name: str, pairs: tuple[tuple[str, str], ...]) -> bool:
    """Test whether parameters may change places."""
    values = tensors(name)
    changed = dict(values)
    for a, b in pairs:
        changed |= {a: values[b], b: values[a]}
    return np.allclose(output(name, changed), output(name, values), rtol=1e-8, atol=1e-10)


def single_symmetries(name: str) -> list[tuple[str, str]]:
    """Return the pairs of parameters of equal shape that may change places."""
    shapes = catalog.entry(name).spec.parameters
    pairs = [(a, b) for a, b in combinations(shapes, 2) if shapes[a] == shapes[b]]
    return [pair for pair in pairs if symmetric(name, (pair,))]


def reach(name: str) -> dict[str, Any]:
    """Return how far outputs see along each axis that the first input and the output share.

    One place of the input after the other is changed; the outputs that follow say how far it is seen.
    """
    spec, known, found = catalog.entry(name).spec, numbers(name), {}
    (first, shape), *_ = spec.inputs.items()
    for axis in dict.fromkeys(shape[:-1] if len(shape) > 1 else ()):
        if axis not in spec.output_shape:
            continue
        slot, to, n = shape.index(axis), spec.output_shape.index(axis), length(axis, known)
        seen = np.zeros((n, n), dtype=bool)
        for seed in range(3, 8):  # a relu may hide a place from one draw
            values = tensors(name, seed)
            y = output(name, values)
            for place in range(n):
                changed = values[first].copy()
                part = np.moveaxis(changed, slot, 0)[place]
                part += np.random.default_rng(place).normal(size=part.shape)
                moved = np.moveaxis(output(name, values | {first: changed}) - y, to, 0).reshape(n, -1)
                seen[:, place] |= np.abs(moved).max(1) > 1e-12
            if seen.all() or "relu" not in str(spec):
                break
        found[axis] = pattern(seen)
    return {axis: far for axis, far in found.items() if far != 0}


def pattern(seen: np.ndarray) -> Any:
    """Return the name of a table that tells which output sees which input."""
    place = np.arange(len(seen))
    if seen.all():
        return "all"
    if np.array_equal(seen, np.tril(np.ones_like(seen))):
        return "past"
    far = int(max(abs(a - e) for a, e in np.argwhere(seen)))
    inner = slice(far, len(seen) - far)  # kernels with holes see less at the borders
    band = np.abs(place[:, None] - place) <= far
    return far if band[inner].size and np.array_equal(seen[inner], band[inner]) else "window"
