"""`factorise`: a channel core or an explicit tensor to a factored layer, within a budget or an error."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Unpack

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from polyattn.algebra import ChannelCore, Spec
from polyattn.errors import FittingError
from polyattn.fitting.block_terms import BLOCK_TERMS
from polyattn.fitting.bounds import layer_bound
from polyattn.fitting.choosing import Trials, of_error, within_budget
from polyattn.fitting.cp import CP
from polyattn.fitting.family import (
    SYMMETRIES,
    Family,
    Ranks,
    Settings,
    as_ranks,
    parameters_of,
    projected,
    relative,
    symmetrised,
)
from polyattn.fitting.input_core import Located, taken
from polyattn.fitting.options import Options, filled
from polyattn.fitting.position_pattern import Layout, arrays, equation
from polyattn.fitting.recognise import Recognition
from polyattn.fitting.scaling import exponent, normalised, spread, times_power
from polyattn.fitting.tensor_train import TT
from polyattn.fitting.tucker import TUCKER
from polyattn.fitting.weighting import square_root, unweighted, weighted
from polyattn.lowering import whole_plan as plan
from polyattn.planning import Plan

FAMILIES: dict[str, Family] = {f.name: f for f in (CP, TUCKER, TT, BLOCK_TERMS)}
ZERO = 1e-13
"""Norm of the symmetric part, relative to the core, below which it is rounding."""
QUICK = 10
"""Steps of the fits that compare ranks; only the best are then fitted to the end."""
DEFAULTS: Options = {
    "sizes": None, "objective": "forward", "starts": 6, "iterations": 200, "seed": 0, "progress": None
}  # fmt: skip
CRITERIA = ("rank", "max_macs", "max_params", "max_error")


class Fitted:
    """The costs of a layer of fitted parameters."""

    plan: Plan
    parameters: dict[str, np.ndarray]

    @property
    def macs(self) -> int:
        """Count the multiply-accumulates of one evaluation of the plan's batch."""
        return self.plan.macs

    @property
    def parameter_count(self) -> int:
        return sum(p.size for p in self.parameters.values())


@dataclass(frozen=True, eq=False)
class Factorisation(Fitted):
    """A factored layer near a channel core.

    Attributes:
        family: the catalogue's name of the family.
        ranks: its rank or ranks.
        spec: the layer, with numbers as ranks.
        parameters: an array in float64 for each parameter.
        error: the norm of the difference divided by that of the core, both of the part on which the layer depends: the
            symmetric one over the exchangeable x's (with symmetry "none", all of it); weighted by the moments, if
            given.
        plan: the layer's plan at the requested sizes.
        core: the factored tensor, T[b,d,f,h]: the output's mode, then one for each x.
        factors: the family's factors, in the order of its parameters; with biases, one more entry of each x's mode.
        symmetry: "pair", "shared" or "none"; see `factorise`.
        layout: the positions of the x's, with blocks and powers of sizes; NL's with or without 1/N.
        errors: the error of each start.
        path: the ranks that were fitted in the search, with the error of each.
    """

    family: str
    ranks: Ranks
    spec: Spec
    parameters: dict[str, np.ndarray]
    error: float
    plan: Plan
    core: np.ndarray
    factors: tuple[np.ndarray, ...]
    symmetry: str
    layout: Layout
    errors: tuple[float, ...]
    path: tuple[tuple[Ranks, float], ...] = ()

    @property
    def mean(self) -> bool:
        """Test if the layer divides by the number of positions."""
        return any(e < 0 for _, e in self.layout.powers)

    @cached_property
    def approximation(self) -> np.ndarray:
        """The tensor of the parameters, the output's mode first."""
        return _rebuilt(self.family, self.factors)

    def bound(self, x: Any, batched: bool | None = None) -> float:
        """Bound the error of the output for an input, in the Frobenius norm, as evaluated in x's precision.

        With the difference of the cores Δ, symmetrised, the output's at NL's positions is Δ applied to each x[a] and to
        the Gram matrix G = Σ_e x[e] x[e]ᵀ, so its norm is at most each of ‖Δ_(b, dfh)‖₂ ‖X‖ ‖G‖ and ‖Δ_(bd, fh)‖₂ ‖X‖₂
        ‖G‖. At other positions it is ‖Δ_(b, dfh)‖₂ times the norm of the pattern's sum of products of x's. The rounding
        of both layers' sums is added, in the precision of x.

        Args:
            x: the input, (N, C) or with more axes of positions, or a batch of them, for which the norms add up as
                squares.
            batched: whether the first axis is the batch. By default, where an array may be a batch of sequences or one
                map, the larger bound.

        Raises:
            FittingError: `x` is not a finite input of the layer's channels and axes.
        """
        magnitude = _rebuilt(self.family, [np.abs(f) for f in self.factors]) + np.abs(self.core)
        terms = sum(self.core.shape) + sum(self.ranks) + len(self.factors) + self.layout.degree
        return layer_bound(self.approximation - self.core, magnitude, terms, self.layout, x, batched)

    def __repr__(self) -> str:
        return f"Factorisation({self})"

    def __str__(self) -> str:
        rank = " x ".join(map(str, self.ranks))
        return (
            f"{self.family} of rank {rank}: relative error {self.error:.3g}, {self.parameter_count:,} parameters, "
            f"{self.macs:,} MACs = {self.plan.complexity}"
        )


def _rebuilt(family: str, factors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the core of factors, the output's mode first."""
    exponents = [exponent(f) for f in factors]
    tensors = [torch.from_numpy(times_power(f, -k)) for f, k in zip(factors, exponents, strict=True)]
    return times_power(find_family(family).rebuild(tensors).movedim(-1, 0).numpy(), sum(exponents))


def factorise(
    core_or_tensor: ChannelCore | Recognition | Located | np.ndarray | Tensor,
    family: str = "cp_nl",
    *,
    rank: int | float | Sequence[int] | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    max_error: float | None = None,
    symmetry: str = "pair",
    mean: bool | None = None,
    moments: np.ndarray | Tensor | None = None,
    **options: Unpack[Options],
) -> Factorisation:
    """Factor a core into a layer of a family with the same channel core, or one near it.

    The core may stand at any pattern of positions, on maps too, and be of any degree from 1: the families except
    `block_term_nl`, which is for degree 3, are then the same decompositions at those positions.

    `rank`, `max_error` or budgets (`max_macs`, `max_params`, or both) choose the ranks: the given ones; the ones with
    the fewest parameters found that reach the error; or those with the least error within the budgets, of equal ones
    the smallest. All tuples of ranks are compared by their decompositions' error, the best are fitted; `path`
    of the result has their errors. A share, such as `rank=0.1`, is the budget of that share of the core's entries.

    The two x at one position are exchangeable, so a layer depends only on the core's symmetric part over the pair. The
    fit uses that freedom: `symmetry="pair"` fits the symmetric part (at other patterns over all exchangeable x's),
    "shared" moreover with one matrix for key and value (`cp_nl` at NL's positions only), "none" fits the core as it is.

    Args:
        core_or_tensor: the core T[b,d,f,h], as an array or from `spec.channel_core`; or an explicit interaction tensor
            of order 8; or a `Recognition` of a single pattern. Modes d, f, h of C + 1 have the constant 1 as their last
            entry: a layer with biases.
        family: "cp_nl", "tucker_nl", "tt_nl" or "block_term_nl".
        mean: whether the layer divides by the number of positions; by default as the core, and for an array not.
        moments: E[x xᵀ] of the layer's input features, (C, C), or with biases (C + 1, C + 1) of the features and a 1.
            The error is then measured on the data: in the core with the moments' square root on each of d, f and h, the
            mean square of the output's error for independent x's.
        options: `sizes` of positions and B in the plan, by default 784 positions, 28 on each axis of a map, and 1, and
            its `objective`; `starts`, 6 initial values where the family's algorithm depends on them, `iterations`, at
            most 200 steps from each, their `seed`, and `progress`, whether to show a bar. See `Options`.

    Raises:
        FittingError: zero or two criteria, an unknown family or option, a rank above the limit, an error or a budget
            out of reach of every rank, entries that are not finite, or several patterns, with those found.

    >>> import numpy as np
    >>> w = np.random.default_rng(0).normal(size=(5, 4, 3))
    >>> found = factorise(np.einsum("br,dr,fr,hr->bdfh", w[0], w[1], w[2], w[3]), rank=3)
    >>> found.spec.parameters["wq"], found.error < 1e-6
    (('C', '3'), True)
    """
    chosen = find_family(family)
    own = filled(options, DEFAULTS, "factorise")
    sizes, objective, starts, iterations = own["sizes"], own["objective"], own["starts"], own["iterations"]
    given = {n: v for n, v in zip(CRITERIA, (rank, max_macs, max_params, max_error), strict=True) if v is not None}
    # Several budgets may be kept at once; a rank or an error stands alone.
    if len(given) != 1 and given.keys() != {"max_macs", "max_params"}:
        found = " and ".join(given) or "none"
        raise FittingError(f"give exactly one of {', '.join(CRITERIA)}; found {found}")
    _check_numbers({n: v for n, v in given.items() if n != "rank"}, starts, iterations)
    if symmetry not in SYMMETRIES:
        raise FittingError(f"unknown symmetry {symmetry!r}; there are {', '.join(SYMMETRIES)}")
    if symmetry == "shared" and not chosen.shares:
        raise FittingError(f'symmetry="shared" is for cp_nl; {family} has no form with one matrix for key and value')
    located = taken(core_or_tensor, mean)
    core, layout = located.core, located.layout
    at_nl, shared = layout.is_nl, symmetry == "shared"
    if shared and not at_nl:
        raise FittingError(f'symmetry="shared" is for key and value at NL\'s positions; found {layout}')
    channels, bias = layout.channels(core), at_nl and core.shape[1] > core.shape[0]
    known = {**default_sizes(layout), **(sizes or {}), "C": channels}
    # Inside this stage the output's mode is the last one.
    scaled, scale = normalised(np.ascontiguousarray(np.moveaxis(core, 0, -1)))
    target, root = torch.from_numpy(scaled), None
    orders = layout.orders[:1] if symmetry == "none" else layout.orders
    if moments is not None:
        # Blocks of positions have channels of their own, which one matrix of moments does not describe.
        if any(s > 1 for s in layout.blocks):
            raise FittingError(f"moments weigh channels that are alike at all positions; found {layout}")
        root = square_root(moments, core.shape[1], bias)
        scaled, more = normalised(weighted(target, root).numpy())
        target, scale = torch.from_numpy(scaled), scale + more
    if not projected(target, orders).norm() > ZERO * target.norm():
        raise FittingError(
            "the core is antisymmetric over exchangeable x's, so the layer is zero at every input: there is nothing to "
            'factor; symmetry="none" factors the core as it is'
        )
    # The fits see a core of norm 1, so that their steps do not depend on its scale.
    norm = target.norm().item()
    target = target / norm

    def spec(ranks: Any) -> Spec:
        if at_nl:
            return chosen.spec(ranks, bool(layout.powers), bias, shared)
        return equation([(layout, *chosen.weights(ranks, layout.degree), "")])

    shown = sys.stderr.isatty() if own["progress"] is None else own["progress"]
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(family, total=None)
        settings = Settings(orders, shared, starts, iterations, own["seed"], lambda: bar.advance(task))

        tried: dict[Ranks, tuple[Factorisation, bool]] = {}

        def planned(ranks: Ranks) -> Plan:
            return plan(spec(ranks), known, objective)

        def fitted(ranks: Ranks, quick: bool = False) -> Factorisation:
            if ranks in tried and (quick or not tried[ranks][1]):
                return tried[ranks][0]
            bar.update(task, description=f"{family} of rank {ranks}")
            run = replace(settings, starts=1, iterations=min(iterations, QUICK)) if quick else settings
            factors, errors = chosen.fit(target, ranks, run)
            error = relative(chosen.rebuild(factors) - target, target, orders)
            weights, _ = chosen.weights(ranks, layout.degree)
            factors = [*factors[:-1], factors[-1] * norm]
            # The fit was in weighted features; the parameters act on plain ones.
            if root is not None:
                factors = unweighted(factors, weights, root)
            factors = spread(factors, scale)
            if at_nl:
                parameters = parameters_of(chosen, factors, bias, shared)
            else:
                parameters = arrays(layout, channels, weights, factors)
            made = planned(ranks)
            kept = tuple(f.numpy() for f in factors)
            found = Factorisation(
                family, ranks, made.spec, parameters, error, made, core, kept, symmetry, layout, errors
            )
            tried[ranks] = (found, quick)
            return found

        if isinstance(rank, float):
            max_params, rank = int(_share(rank, family) * core.size), None
        if rank is not None:
            ranks = as_ranks(rank, family)
            chosen.check(ranks, tuple(target.shape))
            found = fitted(ranks)
        else:
            trials = Trials(
                chosen, target, orders, fitted, planned, spec, lambda s, at: plan(s, at, objective), known
            )  # fmt: skip
            if max_error is not None:
                found = of_error(trials, max_error)
            else:
                found = within_budget(trials, max_macs, max_params)
        path = tuple(sorted((ranks, made.error) for ranks, (made, _) in tried.items()))
        return replace(found, path=path)


def _share(rank: float, family: str) -> float:
    if not 0 < rank <= 1:
        raise FittingError(
            f"`rank` of {family} is positive whole numbers, or the share of the core's entries that its parameters may "
            f"be, from 0 to 1; found {rank!r}"
        )
    return rank


def is_antisymmetric(core: np.ndarray) -> bool:
    """Test if a core at NL's positions, the output's mode first, is zero up to the exchange of key and value."""
    scaled, _ = normalised(core)
    return not np.linalg.norm(symmetrised(scaled)) > ZERO * np.linalg.norm(scaled)


def _check_numbers(criteria: Mapping[str, Any], starts: int, iterations: int) -> None:
    """Check budgets, an error and the settings of a fit.

    Raises:
        FittingError: one is not a number in its range.
    """
    for name, value in criteria.items():
        # Comparisons with NaN are false, so that a search would run to either end of its ranks.
        if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
            raise FittingError(f"`{name}` is a number; found {value!r}")
    for name, value, least in (("starts", starts, 1), ("iterations", iterations, 0)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise FittingError(f"`{name}` is a whole number from {least}; found {value!r}")


def default_sizes(layout: Layout) -> dict[str, int]:
    """Return the plan's default sizes of positions: multiples of the blocks."""
    one = 784 if len(layout.pattern) == 1 else 28
    return {name: -(-one // s) * s for name, s in zip(layout.names, layout.blocks, strict=True)}


def find_family(name: str) -> Family:
    if name not in FAMILIES:
        raise FittingError(f"unknown family {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]
