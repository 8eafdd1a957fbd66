"""Position patterns and channel cores: `W = (deltas over positions) ⊗ T[b,d,f,h]`.

Where no parameter has a slot over positions, each monomial's tensor is a product of deltas between the positions of the
output and of the x's, times a tensor over their channels. Monomials of one pattern add up to one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from polyattn.algebra.conditions import conditions_in
from polyattn.algebra.expand import Expansion
from polyattn.algebra.monomial import FunctionFactor, Index, Monomial, Powers, TensorFactor, power_value
from polyattn.algebra.tensor import add_to_diagonal
from polyattn.errors import NotPolynomialError, SizeError
from polyattn.language import Specification, value_of
from polyattn.language.sizes import ROOT
from polyattn.language.syntax import IDENTITY

Pattern = tuple[tuple[int, ...], ...]
"""For each axis of positions, the class of each mode: the output, then every x. Modes of one class share an index; the
classes are numbered in the order of their first mode, so NL's is ((0, 0, 1, 1),)."""

NL_PATTERN: Pattern = ((0, 0, 1, 1),)


@dataclass(frozen=True, eq=False)
class ChannelCore:
    """One position pattern with its channel core.

    Attributes:
        pattern: the classes of positions; the x's are in the order with the smallest pattern.
        core: T[b,d,f,h]: the output's channel, then each x's.
        powers: the sizes of positions in the coefficient, such as (("N", -1),) for a mean.
    """

    pattern: Pattern
    core: np.ndarray
    powers: Powers = ()

    @property
    def degree(self) -> int:
        return self.core.ndim - 1

    def tensor(self, lengths: Sequence[int], scale: float = 1.0) -> np.ndarray:
        """Return the explicit interaction tensor at the given number of positions on each axis, without `powers`."""
        modes = self.core.ndim
        letters = iter(range(1000))
        channel = [next(letters) for _ in range(modes)]
        operands: list[Any] = [scale * self.core, channel]
        slots: list[list[int]] = [[] for _ in range(modes)]
        for axis, length in zip(self.pattern, lengths, strict=True):
            shared = {c: next(letters) for c in dict.fromkeys(axis)}
            for mode, c in enumerate(axis):
                own = next(letters)
                slots[mode].append(own)
                # A delta between any number of modes: each mode's own label meets the class's label in
                # an identity.
                operands += [np.eye(length), [own, shared[c]]]
        output = [i for mode in range(modes) for i in (*slots[mode], channel[mode])]
        return np.einsum(*operands, output, optimize=True)

    def symmetrised(self) -> np.ndarray:
        """Return the mean of the core over the orders of x's that preserve the pattern: the layer's function depends
        only on it."""
        orders = exchanges(self.pattern)
        return np.mean([self.core.transpose([0, *(k + 1 for k in o)]) for o in orders], axis=0)

    def __str__(self) -> str:
        size = "".join(f" {name}^{e}" if e != -1 else f" / {name}" for name, e in self.powers)
        return f"{pattern_text(self.pattern)} ⊗ core of shape {' x '.join(map(str, self.core.shape))}{size}"


def pattern_text(pattern: Pattern) -> str:
    """Return text such as "δ[y,x1] δ[x2,x3]", with the axis in front if there are several."""
    texts = []
    for number, axis in enumerate(pattern):
        names = ["y", *(f"x{k}" for k in range(1, len(axis)))]
        groups = [[names[m] for m in range(len(axis)) if axis[m] == c] for c in range(max(axis) + 1)]
        tied = " ".join(f"δ[{','.join(g)}]" for g in groups if len(g) > 1) or "no delta"
        texts.append(tied if len(pattern) == 1 else f"axis {number}: {tied}")
    return "; ".join(texts)


def growth(classes: Sequence[int]) -> tuple[int, ...]:
    """Return the classes numbered in the order of their first member."""
    seen: dict[int, int] = {}
    return tuple(seen.setdefault(c, len(seen)) for c in classes)


def reordered(pattern: Pattern, order: Sequence[int]) -> Pattern:
    """Return the pattern with its x's in another order; the output stays."""
    return tuple(growth([axis[0], *(axis[k + 1] for k in order)]) for axis in pattern)


def exchanges(pattern: Pattern) -> list[tuple[int, ...]]:
    """Return the orders of the x's that preserve a pattern: W may be permuted over them freely."""
    return [o for o in permutations(range(len(pattern[0]) - 1)) if reordered(pattern, o) == pattern]


def standard(pattern: Pattern, core: np.ndarray) -> tuple[Pattern, np.ndarray]:
    """Return the same function with the x's in the order with the smallest pattern."""
    order = min(permutations(range(core.ndim - 1)), key=lambda o: (reordered(pattern, o), o))
    return reordered(pattern, order), core.transpose([0, *(k + 1 for k in order)])


def channel_cores(
    spec: Specification, expansion: Expansion, channels: int, parameters: Mapping[str, Any]
) -> tuple[ChannelCore, ...]:
    """Return every position pattern of a layer with its core, the highest degree first; see `Spec.channel_cores`."""
    if len(spec.inputs) != 1 or any(isinstance(f, FunctionFactor) for t in expansion.terms for f in t.factors):
        raise NotPolynomialError("channel cores are those of a polynomial in one input; this specification is none")
    (x,) = spec.inputs
    if len(spec.shape(x)) < 2 or spec.shape(x) != spec.shape(spec.output):
        raise NotPolynomialError("channel cores are those of a layer: an output of the input's shape, channels last")
    # Sizes of positions stay open: a core has no axis over them.
    known = _sizes(spec, x, channels, parameters)
    positions = {a for atoms in spec.shape(x)[:-1] for a in atoms}
    arrays = {}
    for name in spec.parameters:
        over = [spec.sizes.name(atoms) for atoms in spec.shape(name) if positions & {*atoms}]
        if over:
            raise NotPolynomialError(
                f"parameter '{name}' has slots over positions ({', '.join(over)}): the interaction tensor is no "
                "pattern of deltas times a channel core; polyattn.fitting.recognise takes its explicit tensor apart"
            )
        arrays[name] = np.asarray(parameters[name], dtype=float).reshape(
            [value_of([a], known) for atoms in spec.shape(name) for a in atoms]
        )
    # Monomials of one pattern with different powers of N stay apart, since N is not known here.
    found: dict[tuple[Pattern, Powers], np.ndarray] = {}
    for term in expansion.terms:
        pattern, core, powers = _core(spec, term, expansion.output, x, arrays, known, positions)
        key = (pattern, powers)
        found[key] = found[key] + core if key in found else core
    # By degree first, then by pattern: the result does not depend on the order of the text.
    ordered = sorted(found, key=lambda k: (-len(k[0][0]), k))
    return tuple(ChannelCore(pattern, found[pattern, powers], powers) for pattern, powers in ordered)


def _sizes(spec: Specification, x: str, channels: int, parameters: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of the sizes of parameters."""
    given = {spec.sizes.name(spec.shape(x)[-1]): channels}
    # The channel size may be a literal number, or a product without a name; `solve` takes names only.
    given = {name: n for name, n in given.items() if name in spec.sizes.names}
    missing = [name for name in spec.parameters if name not in parameters]
    if missing:
        raise SizeError(f"missing parameter{'s' * (len(missing) > 1)}: {', '.join(missing)}")
    for name in spec.parameters:
        shape = np.shape(parameters[name])
        if len(shape) != len(spec.shape(name)):
            raise SizeError(f"'{name}' has {len(spec.shape(name))} slots, but its array has shape {shape}")
        for atoms, number in zip(spec.shape(name), shape, strict=True):
            size = spec.sizes.name(atoms)
            if size in spec.sizes.names and given.setdefault(size, number) != number:
                raise SizeError(f"size {size} is {given[size]} elsewhere, but {number} in '{name}' of shape {shape}")
    # Slots of literal sizes and of nameless products gave `solve` nothing: they are compared here.
    known = spec.sizes.solve(given)
    for name in spec.parameters:
        shape = tuple(value_of(atoms, known) for atoms in spec.shape(name))
        if np.shape(parameters[name]) != shape:
            raise SizeError(f"parameter '{name}' must have shape {shape}, not {np.shape(parameters[name])}")
    return known


def _core(
    spec: Specification,
    term: Monomial,
    output: tuple[Index, ...],
    x: str,
    arrays: Mapping[str, np.ndarray],
    known: Mapping[str, int],
    positions: set[str],
) -> tuple[Pattern, np.ndarray, Powers]:
    """Return a monomial's pattern, its core with the x's in standard order, and its powers of positions."""
    if any(conditions_in([term])):
        raise NotPolynomialError(
            "a condition between positions is not a pattern of deltas, so this layer has no core over channels: take "
            "interaction_tensor"
        )
    slots = spec.shape(spec.output)
    modes = [output, *(f.indices for f in term.factors if isinstance(f, TensorFactor) and f.tensor == x)]
    widths = [len(atoms) for atoms in slots]
    starts = [sum(widths[:k]) for k in range(len(widths) + 1)]
    tied = _tied(term, positions)
    axes = []
    for k in range(len(slots) - 1):
        indices = [tuple(tied.get(i, i) for i in mode[starts[k] : starts[k + 1]]) for mode in modes]
        flat = {i for mode in indices for i in mode}
        # Two different classes may not share a part of a composite slot: no pattern describes that.
        if len({*indices}) * widths[k] != len(flat):
            raise NotPolynomialError(
                f"the parts of {spec.sizes.name(slots[k])} are tied differently from one another; give the input one "
                "slot for each part"
            )
        axes.append(growth([indices.index(mode) for mode in indices]))
    powers = tuple((s, e) for s, e in term.powers if s.removeprefix(ROOT) in positions)
    number = term.coefficient
    for size, exponent in term.powers:
        # Sizes of channels are known and go into the core; sizes of positions stay as powers.
        number *= power_value(size, exponent, known) if size.removeprefix(ROOT) not in positions else 1
    channel = [i for mode in modes for i in mode[starts[-2] :]]
    shape = [value_of([i.size], known) for i in channel]
    core = np.zeros(shape)
    factors = [f for f in term.factors if isinstance(f, TensorFactor) and f.tensor != x]
    # Identities over positions are in the pattern already.
    factors = [f for f in factors if not (f.tensor == IDENTITY and f.indices[0].size in positions)]
    add_to_diagonal(core, channel, factors, float(number), arrays, known)
    pattern, core = standard(tuple(axes), core.reshape([value_of(slots[-1], known)] * len(modes)))
    return pattern, core, powers


def _tied(term: Monomial, positions: set[str]) -> dict[Index, Index]:
    """Return, for each index over positions, the representative of the indices equal to it by identities."""
    tied: dict[Index, Index] = {}
    for factor in term.factors:
        if isinstance(factor, TensorFactor) and factor.tensor == IDENTITY and factor.indices[0].size in positions:
            a, b = (tied.get(i, i) for i in factor.indices)
            # Earlier entries are moved along, so that chains of identities end at one index.
            tied = {k: b if v == a else v for k, v in tied.items()} | {a: b}
    return tied
