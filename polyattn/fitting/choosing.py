"""The choice of ranks: the least error within budgets, or the fewest parameters within an error.

All tuples of ranks are compared by their decompositions' error (`search`); the best few are then fitted. The
ladder, the tuples along one path of falling thresholds, is among the trials, so a result is never worse than along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import FittingError
from polyattn.fitting.family import Family, Orders, Ranks, projected
from polyattn.fitting.search import Costs, best_ranks, fewest_parameters
from polyattn.planning import Plan

if TYPE_CHECKING:
    from polyattn.fitting.factorise import Factorisation

MOST_CELLS = 2**24
"""Entries of a core up to which all tuples of ranks are compared."""
EXACT, NEARLY = 1e-9, 1e-6
"""Errors of fits that are exact but for rounding, and of those that a smaller rank may make exact."""
CORRECTIONS = 16
"""Tuples tried whose own plan takes more than the bound from other plans."""


@dataclass(frozen=True, eq=False)
class Trials:
    """The fits of one core in one family.

    Attributes:
        family: the family.
        target: the core, of norm 1.
        orders: permutations of its exchangeable x's.
        fitted: fits ranks; quickly, if the second argument says so.
        planned: the layer's plan for ranks.
        spec: the layer for ranks as numbers, or as the names of sizes.
        plan_at: plans such a layer at numbers of all sizes.
        known: the numbers of all sizes but the ranks.
    """

    family: Family
    target: Tensor
    orders: Orders
    fitted: Callable[[Ranks, bool], Factorisation]
    planned: Callable[[Ranks], Plan]
    spec: Callable[[tuple], Spec]
    plan_at: Callable[[Spec, dict[str, int]], Plan]
    known: Mapping[str, int]

    def count(self, ranks: Ranks) -> int:
        """Count the parameters."""
        shapes = self.spec(ranks).parameters.values()
        return sum(prod(int(s) if s.isdigit() else self.known[s] for s in shape) for shape in shapes)

    def costs(self, shape: Ranks) -> Costs:
        names = tuple(f"Rank{k}" for k in range(1, len(shape) + 1))
        spec = self.spec(names)
        return Costs(spec, names, shape, lambda sizes: self.plan_at(spec, sizes), self.known)

    def left_out(self) -> list[np.ndarray]:
        """Return the shares left out by all ranks, of the core as it is and of its symmetric part."""
        if self.family.left_out is None or self.target.numel() > MOST_CELLS:
            return []
        cores = [self.target] if len(self.orders) == 1 else [projected(self.target, self.orders), self.target]
        return [self.family.left_out(core) for core in cores]


def within_budget(trials: Trials, max_macs: float | None, max_params: float | None) -> Factorisation:
    """Fit the ranks with the least error within budgets, of equal ones the smallest.

    Raises:
        FittingError: no ranks keep to them.
    """
    ladder = trials.family.ladder(trials.target, trials.orders)
    limits: list[tuple[Callable[[Ranks], int], float, str]] = []
    if max_macs is not None:
        limits.append((lambda r: trials.planned(r).macs, max_macs, "MACs"))
    if max_params is not None:
        limits.append((trials.count, max_params, "parameters"))
    found = [_largest(ladder, cost, limit, what, trials.family.name) for cost, limit, what in limits]
    wanted = [min(found, key=ladder.index)]
    for left_out in trials.left_out():
        costs = trials.costs(left_out.shape)
        for _ in range(CORRECTIONS):
            ranks = best_ranks(left_out, costs, max_macs, max_params)
            if ranks is None or max_macs is None or trials.planned(ranks).macs <= max_macs:
                break
            if not costs.refuse(ranks):
                left_out[tuple(r - 1 for r in ranks)] = np.inf
        else:
            ranks = None
        if ranks is not None and ranks not in wanted:
            wanted.append(ranks)
    if len(wanted) > 1:
        quick = [trials.fitted(ranks, True) for ranks in wanted]
        best = min(quick, key=lambda f: (f.error if f.error > EXACT else 0.0, f.parameter_count, f.macs))
        wanted = [best.ranks]
    made = trials.fitted(wanted[0], False)
    if made.error <= NEARLY and len(made.ranks) == 1:
        return _smallest_exact(trials, ladder, made)
    return made


def _smallest_exact(trials: Trials, ladder: list[Ranks], made: Factorisation) -> Factorisation:
    """Find the smallest rank that is exact, too, where a budget allowed a larger one."""
    core = projected(trials.target, trials.orders)
    # The first mode's unfolding of a sum over permutations has at most so many times the rank.
    least = max(int(np.linalg.matrix_rank(core.movedim(k, 0).flatten(1), 1e-8)) for k in range(core.dim()))
    first = max(1, -(-least // len(trials.orders)))
    own = ladder.index(made.ranks)
    return within_error(
        [*ladder[first - 1 : own], made.ranks], lambda r: trials.fitted(r, False), max(made.error, EXACT)
    )


def of_error(trials: Trials, limit: float) -> Factorisation:
    """Fit the ranks with the fewest parameters within an error, as far as a descent from two starts finds them.

    Raises:
        FittingError: no ranks reach it.
    """

    def full(ranks: Ranks) -> Factorisation:
        return trials.fitted(ranks, False)

    made = within_error(trials.family.ladder(trials.target, trials.orders), full, limit)
    for left_out in trials.left_out():
        ranks = fewest_parameters(left_out, trials.costs(left_out.shape).parameters(), limit * abs(limit))
        if ranks is not None and trials.count(ranks) < made.parameter_count:
            trial = full(ranks)
            made = trial if trial.error <= limit else made
    # One step down at each rank: a fit reaches less than its decomposition, which the shares above are of.
    stepped = len(made.ranks) > 1
    while stepped:
        stepped = False
        for k, rank in enumerate(made.ranks):
            lower = (*made.ranks[:k], rank - 1, *made.ranks[k + 1 :])
            most = trials.family.most(lower, tuple(trials.target.shape))
            if rank > 1 and all(a <= b for a, b in zip(lower, most, strict=True)):
                trial = full(lower)
                if trial.error <= limit:
                    made, stepped = trial, True
                    break
    return made


def _largest(ladder: list[Ranks], cost: Callable[[Ranks], int], limit: float, what: str, family: str) -> Ranks:
    """Find the last rank of the ladder within a budget, by bisection: costs rise along it."""
    if cost(ladder[0]) > limit:
        raise FittingError(f"no {family} keeps to {limit:,} {what}: rank {ladder[0]} has {cost(ladder[0]):,} already")
    low, high = 0, len(ladder)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(ladder[middle]) <= limit else (low, middle)
    return ladder[low]


def within_error(ladder: list[Ranks], fitted: Callable[[Ranks], Factorisation], limit: float) -> Factorisation:
    """Find the first rank of the ladder within an error: doubled until one is, then halved back."""
    low, high, made = -1, 0, fitted(ladder[0])
    # Each trial is a fit, and small ranks fit fastest: so from below, not by bisection of the whole ladder.
    while made.error > limit and high < len(ladder) - 1:
        low, high = high, min(2 * high + 1, len(ladder) - 1)
        made = fitted(ladder[high])
    if made.error > limit:
        raise FittingError(
            f"no {made.family} reaches a relative error of {limit:g}: rank {made.ranks} has {made.error:.3g}"
        )
    while high - low > 1:
        middle = (low + high) // 2
        trial = fitted(ladder[middle])
        low, high, made = (low, middle, trial) if trial.error <= limit else (middle, high, made)
    return made
