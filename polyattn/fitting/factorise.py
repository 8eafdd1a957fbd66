"""`factorise`: a channel core or an explicit tensor to a factored layer, within a budget or an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from polyattn.algebra import ChannelCore, Spec
from polyattn.errors import FittingError
from polyattn.fitting.block_terms import BLOCK_TERMS
from polyattn.fitting.bounds import output_bound
from polyattn.fitting.cp import CP
from polyattn.fitting.family import SYMMETRIES, Family, Ranks, Settings, parameters_of, relative
from polyattn.fitting.input_core import Located, taken
from polyattn.fitting.position_pattern import Layout, arrays, equation
from polyattn.fitting.recognise import Recognition
from polyattn.fitting.tensor_train import TT
from polyattn.fitting.tucker import TUCKER
from polyattn.fitting.weighting import square_root, unweighted, weighted
from polyattn.lowering import plan
from polyattn.planning import Plan

FAMILIES: dict[str, Family] = {f.name: f for f in (CP, TUCKER, TT, BLOCK_TERMS)}
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
        approximation: the tensor of the parameters, likewise.
        symmetry: "pair", "shared" or "none"; see `factorise`.
        layout: the positions of the x's, with blocks and powers of sizes; NL's with or without 1/N.
        errors: the error of each start.
    """

    family: str
    ranks: Ranks
    spec: Spec
    parameters: dict[str, np.ndarray]
    error: float
    plan: Plan
    core: np.ndarray
    approximation: np.ndarray
    symmetry: str
    layout: Layout
    errors: tuple[float, ...]

    @property
    def mean(self) -> bool:
        """Test if the layer divides by the number of positions."""
        return any(e < 0 for _, e in self.layout.powers)

    def bound(self, x: Any) -> float:
        """Bound the error of the output for an input, in the Frobenius norm.

        With the difference of the cores Δ, symmetrised, the output's at NL's positions is Δ applied to each x[a] and to
        the Gram matrix G = Σ_e x[e] x[e]ᵀ, so its norm is at most each of ‖Δ_(b, dfh)‖₂ ‖X‖ ‖G‖ and ‖Δ_(bd, fh)‖₂ ‖X‖₂
        ‖G‖. At other positions it is ‖Δ_(b, dfh)‖₂ times the norm of the pattern's sum of products of x's.

        Args:
            x: the input, (N, C) or with more axes of positions, or a batch of them, for which the norms add up as
                squares.
        """
        return output_bound(self.approximation - self.core, self.layout, np.asarray(x, dtype=float))

    def __str__(self) -> str:
        rank = " x ".join(map(str, self.ranks))
        return (
            f"{self.family} of rank {rank}: relative error {self.error:.3g}, {self.parameter_count:,} parameters, "
            f"{self.macs:,} MACs = {self.plan.complexity}"
        )


def factorise(
    core_or_tensor: ChannelCore | Recognition | Located | np.ndarray | Tensor,
    family: str = "cp_nl",
    *,
    rank: int | tuple[int, ...] | None = None,
    max_macs: int | None = None,
    max_params: int | None = None,
    max_error: float | None = None,
    symmetry: str = "pair",
    mean: bool | None = None,
    moments: np.ndarray | Tensor | None = None,
    sizes: Mapping[str, int] | None = None,
    objective: str = "forward",
    starts: int = 6,
    iterations: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> Factorisation:
    """Factor a core into a layer of a family with the same channel core, or one near it.

    The core may stand at any pattern of positions, on maps too, and be of any degree from 1: the families except
    `block_term_nl`, which is for degree 3, are then the same decompositions at those positions.

    Exactly one of `rank`, `max_macs`, `max_params` and `max_error` chooses the rank: the given one, the largest within
    the budget, or the smallest that reaches the error.

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
        sizes: sizes of positions and B in the plan, by default 784 positions, 28 on each axis of a map, and 1.
        objective: objective of the plan.
        starts: number of initial values, if the family's algorithm depends on them.
        iterations: limit on the steps from each.
        seed: seed of the initial values.
        progress: whether to show a progress bar; by default if the error stream is a terminal.

    Raises:
        FittingError: zero or two criteria, an unknown family, a rank above the limit, an error or a budget out of reach
            of every rank, entries that are not finite, or several patterns, with those found.

    >>> import numpy as np
    >>> w = np.random.default_rng(0).normal(size=(5, 4, 3))
    >>> found = factorise(np.einsum("br,dr,fr,hr->bdfh", w[0], w[1], w[2], w[3]), rank=3)
    >>> found.spec.parameters["wq"], found.error < 1e-6
    (('C', '3'), True)
    """
    chosen = find_family(family)
    given = {n: v for n, v in zip(CRITERIA, (rank, max_macs, max_params, max_error), strict=True) if v is not None}
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise FittingError(f"give exactly one of {', '.join(CRITERIA)}; found {found}")
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
    target, root = torch.from_numpy(np.ascontiguousarray(np.moveaxis(core, 0, -1))), None
    orders = layout.orders[:1] if symmetry == "none" else layout.orders
    if moments is not None:
        # Blocks of positions have channels of their own, which one matrix of moments does not describe.
        if any(s > 1 for s in layout.blocks):
            raise FittingError(f"moments weigh channels that are alike at all positions; found {layout}")
        root = square_root(moments, core.shape[1])
        target = weighted(target, root)

    def spec(ranks: Ranks) -> Spec:
        if at_nl:
            return chosen.spec(ranks, bool(layout.powers), bias, shared)
        return equation([(layout, *chosen.weights(ranks, layout.degree), "")])

    shown = sys.stderr.isatty() if progress is None else progress
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(family, total=None)
        settings = Settings(orders, shared, starts, iterations, seed, lambda: bar.advance(task))

        def planned(ranks: Ranks) -> Plan:
            return plan(spec(ranks), known, objective)

        def fitted(ranks: Ranks) -> Factorisation:
            bar.update(task, description=f"{family} of rank {ranks}")
            factors, errors = chosen.fit(target, ranks, settings)
            error = relative(chosen.rebuild(factors) - target, target, orders)
            weights, _ = chosen.weights(ranks, layout.degree)
            # The fit was in weighted features; the parameters act on plain ones.
            if root is not None:
                factors = unweighted(factors, weights, root)
            approximation = chosen.rebuild(factors).movedim(-1, 0).numpy()
            if at_nl:
                parameters = parameters_of(chosen, factors, bias, shared)
            else:
                parameters = arrays(layout, channels, weights, factors)
            made = planned(ranks)
            return Factorisation(
                family, ranks, made.spec, parameters, error, made, core, approximation, symmetry, layout, errors
            )

        if rank is not None:
            ranks = (rank,) if isinstance(rank, int) else tuple(rank)
            chosen.check(ranks, tuple(target.shape))
            return fitted(ranks)
        # Increasing ranks, so that a budget or an error can be found by bisection.
        ladder = chosen.ladder(target, orders)
        if max_error is not None:
            return _within_error(ladder, fitted, max_error)
        if max_macs is not None:
            return fitted(_largest(ladder, lambda r: planned(r).macs, max_macs, "MACs", family))

        def count(ranks: Ranks) -> int:
            shapes = spec(ranks).parameters.values()
            return sum(int(np.prod([_number(s, known) for s in shape])) for shape in shapes)

        assert max_params is not None
        return fitted(_largest(ladder, count, max_params, "parameters", family))


def default_sizes(layout: Layout) -> dict[str, int]:
    """Return the plan's default sizes of positions: multiples of the blocks."""
    one = 784 if len(layout.pattern) == 1 else 28
    return {name: -(-one // s) * s for name, s in zip(layout.names, layout.blocks, strict=True)}


def find_family(name: str) -> Family:
    if name not in FAMILIES:
        raise FittingError(f"unknown family {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _number(size: str, known: Mapping[str, int]) -> int:
    return int(size) if size.isdigit() else known[size]


def _largest(ladder: list[Ranks], cost: Callable[[Ranks], int], limit: int, what: str, family: str) -> Ranks:
    """Find the last rank of the ladder within a budget, by bisection: costs rise along it."""
    if cost(ladder[0]) > limit:
        raise FittingError(f"no {family} keeps to {limit:,} {what}: rank {ladder[0]} has {cost(ladder[0]):,} already")
    low, high = 0, len(ladder)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(ladder[middle]) <= limit else (low, middle)
    return ladder[low]


def _within_error(ladder: list[Ranks], fitted: Callable[[Ranks], Factorisation], limit: float) -> Factorisation:
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
