"""The ranks with the least error within budgets: all tuples of ranks, by the energy that each leaves out.

The error of a tuple of ranks follows for all tuples at once from one decomposition of full rank: for
Tucker from the entries of its orthogonal core outside of a box, for the tensor train from the tails of its unfoldings'
spectra, for block terms from those of its singular vectors as matrices. The costs of all tuples follow from the plans
at a few: a plan's products, as a polynomial in the ranks, bound the cost of the cheapest plan at every other tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from polyattn.algebra import Spec
from polyattn.fitting.family import Ranks
from polyattn.planning import Plan
from polyattn.planning.steps import loop_indices, multiplies

PLANS = 6
"""Rounds of plans in the search for one budget."""
TIE, EXACT = 1e-9, 1e-26
"""Shares left out that differ by less, relative to each other or to the core, are equal."""
Terms = tuple[tuple[tuple[str, ...], int], ...]


class Costs:
    """The costs of a layer at all tuples of ranks up to the shape of a grid.

    Args:
        spec: the layer, with `names` as the sizes of its ranks.
        plan: plans it at the numbers of all sizes.
        known: the numbers of the other sizes.
    """

    def __init__(
        self, spec: Spec, names: Sequence[str], shape: Ranks, plan: Callable[[dict[str, int]], Plan], known: Mapping
    ):
        self.spec, self.names, self.plan, self.known = spec, tuple(names), plan, dict(known)
        self.axes = dict(zip(names, np.ogrid[tuple(slice(1, n + 1) for n in shape)], strict=True))
        self.shape = shape
        self._orders: dict[Terms, np.ndarray] = {}
        self._unused: set[Terms] = set()

    def parameters(self) -> np.ndarray:
        return self._sum([(shape, 1) for shape in self.spec.parameters.values()])

    def macs(self) -> np.ndarray:
        """Return the multiply-accumulates of the cheapest of the known orders of contraction."""
        return np.minimum.reduce([c for terms, c in self._orders.items() if terms not in self._unused])

    def learn(self, ranks: Ranks) -> Terms:
        """Plan at some ranks, and let its order of contraction bound the cost at all others."""
        made = self.plan({**self.known, **dict(zip(self.names, ranks, strict=True))})
        sizes = {**made.graph.known}
        own: dict[tuple[str, ...], int] = {}
        for node in made.nodes:
            if multiplies(node):
                indices = [i.size for i in loop_indices(node)]
                ranked = tuple(sorted(s for s in indices if s in self.axes))
                number = prod(int(s) if s.isdigit() else sizes[s] for s in indices if s not in self.axes)
                own[ranked] = own.get(ranked, 0) + number
        terms = tuple(sorted(own.items()))
        if terms not in self._orders:
            self._orders[terms] = self._sum(terms)
        return terms

    def refuse(self, ranks: Ranks) -> bool:
        """Drop the orders that bound the cost at some ranks by less than its plan takes; return whether there are any.

        The planner may prefer an order that is faster to one with fewer multiply-accumulates.
        """
        own = self.learn(ranks)
        place = tuple(r - 1 for r in ranks)
        taken = self._orders[own][place]
        wrong = {t for t, c in self._orders.items() if t not in self._unused and t != own and c[place] < taken}
        self._unused = (self._unused | wrong) - {own}
        return bool(wrong)

    def _sum(self, terms: Sequence[tuple[tuple[str, ...], int]]) -> np.ndarray:
        total = np.zeros(self.shape)
        for sizes, number in terms:
            factor: np.ndarray | float = float(number)
            for s in sizes:
                factor = factor * (self.axes[s] if s in self.axes else int(s) if s.isdigit() else self.known[s])
            total = total + factor
        return total


def best_ranks(left_out: np.ndarray, costs: Costs, max_macs: float | None, max_params: float | None) -> Ranks | None:
    """Return the ranks that leave out least within the budgets, of equal ones those with the fewest parameters.

    Args:
        left_out: the share of the core's square that each tuple of ranks leaves out, infinite where it is useless.

    Returns:
        None if no tuple keeps to the budgets.
    """
    count = costs.parameters()
    allowed = np.isfinite(left_out)
    if max_params is not None:
        allowed &= count <= max_params
    if max_macs is None:
        return _least(left_out, count, allowed)
    costs.learn((1,) * len(costs.shape))
    costs.learn(costs.shape)
    for axis in range(len(costs.shape)):
        costs.learn(tuple(n if k == axis else 1 for k, n in enumerate(costs.shape)))
    seen: set[Ranks] = set()
    found = None
    for _ in range(PLANS):
        found = _least(left_out, count, allowed & (costs.macs() <= max_macs))
        # Beyond the budget by the known orders, but perhaps not by the one that is best there.
        near = _least(left_out, count, allowed & (costs.macs() <= 1.3 * max_macs))
        fresh = [r for r in (found, near) if r is not None and r not in seen]
        if not fresh:
            break
        for ranks in fresh:
            seen.add(ranks)
            costs.learn(ranks)
    return found


def _least(left_out: np.ndarray, count: np.ndarray, allowed: np.ndarray) -> Ranks | None:
    if not allowed.any():
        return None
    least = left_out[allowed].min()
    ties = allowed & (left_out <= least * (1 + TIE) + EXACT)
    place = int(np.where(ties, count, np.inf).argmin())
    return tuple(int(k) + 1 for k in np.unravel_index(place, left_out.shape))


def fewest_parameters(left_out: np.ndarray, count: np.ndarray, limit: float) -> Ranks | None:
    """Return the ranks with the fewest parameters that leave out at most a share."""
    allowed = left_out <= limit
    if not allowed.any():
        return None
    place = int(np.where(allowed, count, np.inf).argmin())
    return tuple(int(k) + 1 for k in np.unravel_index(place, left_out.shape))


def tails(values: np.ndarray) -> np.ndarray:
    """Return the sums of squares behind the first 1, 2, ... values: to the last digits of small ones, too."""
    squares = np.square(values)[::-1].cumsum()[::-1]
    return np.append(squares[1:], 0.0)


def outside_boxes(core: np.ndarray) -> np.ndarray:
    """Return, for each corner, the sum of squares of the entries outside of the box up to it.

    As sums of squares of disjoint parts: the whole less the box would lose the digits of small ones.
    """
    total, inside = np.zeros(core.shape), np.square(core)
    for axis in range(core.ndim):
        rest = inside.sum(tuple(range(axis + 1, core.ndim)), keepdims=True) if axis + 1 < core.ndim else inside
        behind = np.flip(np.flip(rest, axis).cumsum(axis), axis)
        total = total + np.concatenate(
            [behind.take(range(1, core.shape[axis]), axis), 0 * behind.take([0], axis)], axis
        )
        inside = inside.cumsum(axis)
    return total
