"""`factorise_polynomial`: a sum of orders, or of patterns, each factored in its own family at its own rank.

The polynomial of Poly-NL, Eq. 3, is a bias, and for each order up to the third an interaction tensor. Each position
pattern of each order has a channel core, and the sum of their factorisations is again one specification, planned as a
whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from polyattn.algebra import ChannelCore, Spec
from polyattn.errors import FittingError
from polyattn.fitting.bounds import layer_bound
from polyattn.fitting.factorise import CRITERIA, FAMILIES, Factorisation, Fitted, default_sizes, factorise, find_family
from polyattn.fitting.family import Weight, symmetrised
from polyattn.fitting.input_core import Located, components
from polyattn.fitting.position_pattern import Layout, arrays, equation
from polyattn.fitting.recognise import Recognition, recognise
from polyattn.fitting.scaling import exponent, times_power
from polyattn.lowering import whole_plan as plan
from polyattn.planning import Plan

WHOLE = "whole"
T = TypeVar("T")
PerOrder = T | Mapping[int, T]
"""One value for all orders, or one for each by its degree."""


@dataclass(frozen=True, eq=False)
class Part:
    """One pattern of one order.

    Attributes:
        name: suffix of its parameters: its degree, with a letter if an order has several patterns.
        layout: the positions of its x's.
        core: T[b,...], the output's mode first.
        factorisation: that of the core; None if it is kept whole, as the bias always is.
    """

    name: str
    layout: Layout
    core: np.ndarray
    factorisation: Factorisation | None

    def __repr__(self) -> str:
        return f"Part({self.name}, {self.layout}: {'whole' if self.factorisation is None else self.factorisation})"

    @property
    def degree(self) -> int:
        return self.layout.degree

    @property
    def error(self) -> float:
        """Return the relative error, of the part on which the layer depends."""
        return 0.0 if self.factorisation is None else self.factorisation.error


@dataclass(frozen=True, eq=False)
class FactoredPolynomial(Fitted):
    """A sum of factored orders.

    Attributes:
        parts: the highest order first.
        spec: the layer, with numbers as ranks.
        parameters: an array in float64 for each parameter.
        error: the norm of all parts' differences divided by that of all parts.
        plan: plan of the sum, at the requested sizes.
    """

    parts: tuple[Part, ...]
    spec: Spec
    parameters: dict[str, np.ndarray]
    error: float
    plan: Plan

    def bound(self, x: Any, batched: bool | None = None) -> float:
        """Bound the error of the output for an input or a batch: the sum of the parts' bounds, rounding included."""
        found = 0.0
        for part in self.parts:
            if part.factorisation is not None:
                found += part.factorisation.bound(x, batched)
            elif part.degree:
                # Kept whole: off by rounding only.
                zero, size = np.zeros_like(part.core), sum(part.core.shape) + part.layout.modes
                found += layer_bound(zero, 2 * np.abs(part.core), size, part.layout, x, batched)
        return found

    def __repr__(self) -> str:
        orders = ", ".join(p.name for p in self.parts)
        return (
            f"FactoredPolynomial(orders {orders}, relative error {self.error:.3g}, {self.parameter_count:,} parameters)"
        )

    def __str__(self) -> str:
        lines = [
            f"order {p.degree}, {p.layout}: "
            + ("whole" if p.factorisation is None else str(p.factorisation).partition(", ")[0])
            for p in self.parts
        ]
        total = f"relative error {self.error:.3g}, {self.parameter_count:,} parameters, {self.macs:,} MACs"
        return "\n".join([*lines, f"{total} = {self.plan.complexity}"])


def factorise_polynomial(
    given: Sequence[ChannelCore | np.ndarray | Tensor] | Recognition,
    family: PerOrder[str] = "cp_nl",
    *,
    rank: PerOrder[int | tuple[int, ...]] | None = None,
    max_macs: PerOrder[int] | None = None,
    max_params: PerOrder[int] | None = None,
    max_error: PerOrder[float] | None = None,
    axes: int = 2,
    sizes: Mapping[str, int] | None = None,
    objective: str = "forward",
    **options: Any,
) -> FactoredPolynomial:
    """Factor a sum of orders, each in its own family at its own rank.

    Source: Poly-NL, Eq. 3: `y = β + W¹ • x + (W² • x) • x + ((W³ • x) • x) • x`.

    Args:
        given: the cores of a specification (`spec.channel_cores`), a `Recognition` of an explicit tensor, or the
            explicit tensors themselves, one for each order: W of order `axes` times (degree + 1), β of order `axes`.
        family: the catalogue's name of a family, or "whole" to keep an order's core as one parameter; for all orders or
            by degree. A bias is always whole. `block_term_nl` is for degree 3.
        rank, max_macs, max_params, max_error: as in `factorise`, for all orders or by degree; exactly one for each
            order that is not whole. Budgets are each order's own.
        axes: number of axes of the input, the channels included, for explicit tensors.
        sizes, objective: those of the plans.
        options: symmetry, starts, iterations, seed and progress, as in `factorise`.

    Raises:
        FittingError: as `factorise`; an empty sum, an unknown degree, or tensors of different inputs.

    >>> import numpy as np
    >>> from polyattn import Spec
    >>> full = Spec("x[N,C]; y[a,b] = x[a,d]*x[e,f]*x[e,h]*w3[d,f,h,b] + x[a,d]*w1[d,b] + w0[b]")
    >>> random = np.random.default_rng(0)
    >>> w3 = np.einsum("dr,fr,hr,rb->dfhb", *random.normal(size=(3, 4, 2)), random.normal(size=(2, 4)))
    >>> w = {"w3": w3, "w1": random.normal(size=(4, 4)), "w0": random.normal(size=4)}
    >>> found = factorise_polynomial(full.channel_cores(4, w), {3: "cp_nl", 1: "whole"}, rank={3: 2})
    >>> found.spec.parameters["wq3"], found.spec.parameters["core1"], found.error < 1e-6
    (('C', '2'), ('C', 'C'), True)
    """
    if options.get("symmetry") == "shared":
        raise FittingError('symmetry="shared" is for one core at NL\'s positions; give "pair" or "none"')
    cores = _cores(given, axes)
    degrees = {c.layout.degree for c in cores}
    criteria = dict(zip(CRITERIA, (rank, max_macs, max_params, max_error), strict=True))
    for name, value in {"family": family, **criteria}.items():
        absent = sorted(set(value) - degrees) if isinstance(value, Mapping) else []
        if absent:
            raise FittingError(f"{name} is given for order {absent[0]}; there are {sorted(degrees, reverse=True)}")
    parts = []
    for name, located in zip(_names(cores), cores, strict=True):
        core, layout = located.core, located.layout
        chosen = _at(family, layout.degree)
        if chosen is None:
            raise FittingError(
                f"no family for order {layout.degree}; give one of {', '.join(FAMILIES)}, or {WHOLE!r} to keep it"
            )
        made = None
        if layout.degree and chosen != WHOLE:
            find_family(chosen)
            asked = {n: v for n, value in criteria.items() if (v := _at(value, layout.degree)) is not None}
            if len(asked) != 1:
                found = " and ".join(asked) or "none"
                raise FittingError(
                    f"give exactly one of {', '.join(CRITERIA)} for order {layout.degree}; found {found}"
                )
            made = factorise(located, chosen, sizes=sizes, objective=objective, **asked, **options)
        parts.append(Part(name, layout, core, made))
    return _sum(tuple(parts), sizes, objective)


def _cores(given: Any, axes: int) -> list[Located]:
    """Return the patterns of all orders, the highest order first."""
    if isinstance(given, Recognition | ChannelCore):
        found = components(given)
    else:
        found, inputs = [], set()
        for item in given:
            if isinstance(item, ChannelCore):
                found += components(item)
                continue
            recognised = item if isinstance(item, Recognition) else recognise(item, axes)
            inputs.add(recognised.shape)
            found += components(recognised)
        if len(inputs) > 1:
            raise FittingError(f"the tensors are of different inputs: shapes {' and '.join(map(str, sorted(inputs)))}")
    if not found:
        raise FittingError("there is no order to factor")
    channels = {c.layout.channels(c.core) for c in found}
    if len(channels) > 1:
        raise FittingError(f"the orders have different numbers of channels: {sorted(channels)}")
    return sorted(found, key=lambda c: -c.layout.degree)


def _names(cores: list[Located]) -> list[str]:
    degrees = [c.layout.degree for c in cores]
    names = []
    for k, degree in enumerate(degrees):
        # Several patterns of one degree need names of their own for their parameters.
        number = degrees[:k].count(degree)
        names.append(f"{degree}{chr(ord('a') + number) if degrees.count(degree) > 1 else ''}")
    return names


def _at(value: Any, degree: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    return value.get(degree, WHOLE if degree == 0 else None)


def _sum(parts: tuple[Part, ...], sizes: Mapping[str, int] | None, objective: str) -> FactoredPolynomial:
    terms, parameters, off, norm = [], {}, 0.0, 0.0
    # Squares of cores far from 1 leave the range of floats.
    scale = max(exponent(part.core) for part in parts)
    for part in parts:
        made, layout, channels = part.factorisation, part.layout, part.layout.channels(part.core)
        if made is None:
            weights: list[Weight] = [("core", (*range(1, layout.modes), 0))]
            core, ranks = torch.from_numpy(np.ascontiguousarray(np.moveaxis(part.core, 0, -1))), {}
            parameters |= arrays(layout, channels, weights, [core], part.name)
        else:
            weights, ranks = find_family(made.family).weights(made.ranks, layout.degree)
            parameters |= {name + part.name: array for name, array in made.parameters.items()}
            # Parts at different patterns are different functions, so their errors add up as squares.
            off += (part.error * _norm(part, scale)) ** 2
        norm += _norm(part, scale) ** 2
        terms.append((layout, weights, ranks, part.name))
    spec = equation(terms)
    known = {**default_sizes(parts[0].layout), **(sizes or {}), "C": parts[0].layout.channels(parts[0].core)}
    made = plan(spec, known, objective)
    return FactoredPolynomial(parts, made.spec, parameters, (off / norm) ** 0.5, made)


def _norm(part: Part, scale: int) -> float:
    """Return the norm of the symmetric part, or of the whole core if that was fitted, divided by 2^scale."""
    orders = part.layout.orders
    if part.factorisation is not None and part.factorisation.symmetry == "none":
        orders = orders[:1]
    return float(np.linalg.norm(symmetrised(times_power(part.core, -scale), orders)))
