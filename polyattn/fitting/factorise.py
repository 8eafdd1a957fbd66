"""`factorise`: a channel core or an explicit tensor to a factored layer, as cheap or as exact as asked for."""

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

from polyattn.algebra import NL_PATTERN, ChannelCore, Spec
from polyattn.algebra.core import pattern_text
from polyattn.errors import FittingError
from polyattn.fitting.block_terms import BLOCK_TERMS
from polyattn.fitting.cp import CP
from polyattn.fitting.family import SYMMETRIES, Family, Ranks, Settings, parameters_of, relative, symmetric
from polyattn.fitting.recognise import recognise
from polyattn.fitting.tensor_train import TT
from polyattn.fitting.tucker import TUCKER
from polyattn.fitting.weighting import square_root, unweighted
from polyattn.lowering import plan
from polyattn.planning import Plan

FAMILIES: dict[str, Family] = {f.name: f for f in (CP, TUCKER, TT, BLOCK_TERMS)}
CRITERIA = ("rank", "max_macs", "max_params", "max_error")


@dataclass(frozen=True, eq=False)
class Factorisation:
    """A factored layer near a channel core.

    Attributes:
        family: the catalogue's name of the family.
        ranks: its rank or ranks.
        spec: the layer, its ranks being numbers.
        parameters: an array in float64 for each parameter.
        error: the norm of the difference over that of the core, both of what the layer depends on: the part that is
            symmetric over the exchangeable x's (with symmetry "none", all of it); weighted by the moments, if given.
        plan: the layer's plan at the sizes asked for.
        core: what was factored, T[b,d,f,h].
        approximation: what the parameters are a factorisation of, likewise.
        symmetry: "pair", "shared" or "none"; see `factorise`.
        mean: whether the layer divides by the number of positions.
        errors: what each start reached.
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
    mean: bool
    errors: tuple[float, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one evaluation of the plan's batch."""
        return self.plan.macs

    @property
    def parameter_count(self) -> int:
        return sum(p.size for p in self.parameters.values())

    def bound(self, x: Any) -> float:
        """The most that the output can be off for an input, in the Frobenius norm.

        With the difference of the cores Δ, symmetrised, the output's is Δ applied to each x[a] and to the Gram matrix
        G = Σ_e x[e] x[e]ᵀ, so its norm is at most each of ‖Δ_(b, dfh)‖₂ ‖X‖ ‖G‖ and ‖Δ_(bd, fh)‖₂ ‖X‖₂ ‖G‖.

        Args:
            x: the input (N, C), or a batch of them, for which the norms add up as squares.
        """
        x = np.asarray(x, dtype=float)
        samples = x.reshape(-1, *x.shape[-2:])
        delta = self.approximation - self.core
        delta = (delta + delta.swapaxes(2, 3)) / 2
        c, d, f, h = delta.shape
        by_output = np.linalg.norm(delta.reshape(c, d * f * h), 2)
        by_pair = np.linalg.norm(delta.reshape(c * d, f * h), 2)
        squares = 0.0
        for sample in samples:
            if d > sample.shape[1]:
                sample = np.concatenate([sample, np.ones((len(sample), 1))], 1)
            gram = np.linalg.norm(sample.T @ sample) / (len(sample) if self.mean else 1)
            own = min(by_output * np.linalg.norm(sample), by_pair * np.linalg.norm(sample, 2))
            squares += (own * gram) ** 2
        return float(squares**0.5)

    def __str__(self) -> str:
        rank = self.ranks[0] if len(self.ranks) == 1 else self.ranks
        return (
            f"{self.family} of rank {rank}: relative error {self.error:.3g}, {self.parameter_count:,} parameters, "
            f"{self.macs:,} MACs = {self.plan.complexity}"
        )


def factorise(
    core_or_tensor: ChannelCore | np.ndarray | Tensor,
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
    """A layer of a family whose channel core is, or is near, the given one.

    Exactly one of `rank`, `max_macs`, `max_params` and `max_error` chooses the rank: the given one, the largest that
    keeps to the budget, or the smallest that reaches the error.

    The two x at one position may be exchanged, so a layer depends only on the core's symmetric part over d of the pair.
    The fit uses that freedom: `symmetry="pair"` fits the symmetric part, "shared" moreover with one matrix for key and
    value (`cp_nl` only), "none" fits the core as it is.

    Args:
        core_or_tensor: the core T[b,d,f,h], as an array or as `spec.channel_core` gives it; or an explicit
            interaction tensor of order 8, whose pattern has to be NL's. Modes d, f, h of C + 1 mean that the last entry
            is the constant 1: a layer with biases.
        family: "cp_nl", "tucker_nl", "tt_nl" or "block_term_nl".
        mean: whether the layer divides by the number of positions; what the core says, and for an array no.
        moments: E[x xᵀ] of the features that the layer will see, (C, C), or with biases (C + 1, C + 1) of the features
            and a 1. The error is then measured where the data is: in the core with the moments' square root on each of
            d, f and h, which is the mean square of the output's error were the three x's independent.
        sizes: N and B of the plan, by default 784 and 1.
        objective: of the plan.
        starts: initial values to try, as far as the family's algorithm depends on them.
        iterations: the most steps from each.
        seed: of the initial values.
        progress: show a progress bar; by default where the error stream is a terminal.

    Raises:
        FittingError: no or two criteria, an unknown family, a rank that is too large, an error or a budget that no rank
            reaches, entries that are not finite, or a pattern that is not NL's, with what was found.

    >>> import numpy as np
    >>> w = np.random.default_rng(0).normal(size=(5, 4, 3))
    >>> found = factorise(np.einsum("br,dr,fr,hr->bdfh", w[0], w[1], w[2], w[3]), rank=3)
    >>> found.spec.parameters["wq"], found.error < 1e-6
    (('C', '3'), True)
    """
    chosen = _family(family)
    given = {n: v for n, v in zip(CRITERIA, (rank, max_macs, max_params, max_error), strict=True) if v is not None}
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise FittingError(f"give exactly one of {', '.join(CRITERIA)}; found {found}")
    if symmetry not in SYMMETRIES:
        raise FittingError(f"unknown symmetry {symmetry!r}; there are {', '.join(SYMMETRIES)}")
    if symmetry == "shared" and not chosen.shares:
        raise FittingError(f'symmetry="shared" is for cp_nl; {family} has no form with one matrix for key and value')
    core, own_mean = _core(core_or_tensor)
    mean = own_mean if mean is None else mean
    bias = core.shape[1] == core.shape[0] + 1
    known = {"N": 784, **(sizes or {}), "C": core.shape[0]}
    target, root = torch.from_numpy(np.ascontiguousarray(core.transpose(1, 2, 3, 0))), None
    if moments is not None:
        root = square_root(moments, core.shape[1])
        target = torch.einsum("dfhb,di,fj,hk->ijkb", target, root, root, root)
    shown = sys.stderr.isatty() if progress is None else progress
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(family, total=None)
        settings = Settings(symmetry, starts, iterations, seed, lambda: bar.advance(task))

        def planned(ranks: Ranks) -> Plan:
            return plan(chosen.spec(ranks, mean, bias, symmetry == "shared"), known, objective)

        def fitted(ranks: Ranks) -> Factorisation:
            bar.update(task, description=f"{family} of rank {ranks}")
            factors, errors = chosen.fit(target, ranks, settings)
            error = relative(chosen.rebuild(factors) - target, target, symmetry)
            if root is not None:
                factors = unweighted(chosen, factors, root)
            made, approximation = planned(ranks), chosen.rebuild(factors).permute(3, 0, 1, 2).numpy()
            parameters = parameters_of(chosen, factors, bias)
            return Factorisation(
                family, ranks, made.spec, parameters, error, made, core, approximation, symmetry, mean, errors
            )

        if rank is not None:
            ranks = (rank,) if isinstance(rank, int) else tuple(rank)
            chosen.check(ranks, tuple(target.shape))
            return fitted(ranks)
        ladder = chosen.ladder(target)
        if max_error is not None:
            return _within_error(ladder, fitted, max_error)
        if max_macs is not None:
            return fitted(_largest(ladder, lambda r: planned(r).macs, max_macs, "MACs", family))

        def count(ranks: Ranks) -> int:
            spec = chosen.spec(ranks, mean, bias, symmetry == "shared")
            return sum(int(np.prod([_number(s, known) for s in shape])) for shape in spec.parameters.values())

        assert max_params is not None
        return fitted(_largest(ladder, count, max_params, "parameters", family))


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise FittingError(f"unknown family {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _number(size: str, known: Mapping[str, int]) -> int:
    return int(size) if size.isdigit() else known[size]


def _core(given: ChannelCore | np.ndarray | Tensor) -> tuple[np.ndarray, bool]:
    """T[b,d,f,h] and whether the layer divides by N.

    Raises:
        FittingError: it is no core of NL's kind, or not finite.
    """
    if isinstance(given, ChannelCore):
        found, powers = given, given.powers
        if given.pattern != NL_PATTERN or powers not in ((), (("N", -1),)):
            raise FittingError(f"the families have NL's pattern, {pattern_text(NL_PATTERN)}; found {given}")
        array = found.core
    else:
        array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        powers = ()
    if array.dtype.kind not in "fiu":
        raise FittingError(f"a core has real numbers; found {array.dtype}")
    array = array.astype(float)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        place = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
        raise FittingError(f"{bad} of {array.size} entries are not finite, the first at {place}: {array[place]}")
    if array.ndim == 8:
        return _recognised(array), False
    c, *inner = array.shape if array.ndim == 4 else (0,)
    if array.ndim != 4 or len({*inner}) != 1 or inner[0] not in (c, c + 1):
        raise FittingError(
            "a core T[b,d,f,h] has the shape (C, C, C, C), with biases (C, C + 1, C + 1, C + 1), and an interaction "
            f"tensor order 8, shape (N, C) four times; found shape {array.shape}"
        )
    if not array.any():
        raise FittingError("the core is zero: there is nothing to factor")
    return array, bool(powers)


def _recognised(tensor: np.ndarray) -> np.ndarray:
    found = recognise(tensor)
    if found.blocks != (1,) or [c.pattern for c in found.components] != [NL_PATTERN]:
        raise FittingError(f"the families have NL's pattern, {pattern_text(NL_PATTERN)}; found {found}")
    return found.components[0].core


def _largest(ladder: list[Ranks], cost: Callable[[Ranks], int], limit: int, what: str, family: str) -> Ranks:
    """The last of the ladder within a budget, which costs rise along."""
    if cost(ladder[0]) > limit:
        raise FittingError(f"no {family} keeps to {limit:,} {what}: rank {ladder[0]} has {cost(ladder[0]):,} already")
    low, high = 0, len(ladder)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(ladder[middle]) <= limit else (low, middle)
    return ladder[low]


def _within_error(ladder: list[Ranks], fitted: Callable[[Ranks], Factorisation], limit: float) -> Factorisation:
    """The first of the ladder with at most such an error: doubled until one has, then halved back."""
    low, high, made = -1, 0, fitted(ladder[0])
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


def symmetrised(core: np.ndarray) -> np.ndarray:
    """T[b,d,f,h] made symmetric over the exchangeable pair: all that a layer of NL's kind depends on."""
    tensor = torch.from_numpy(np.ascontiguousarray(np.asarray(core, dtype=float).transpose(1, 2, 3, 0)))
    return symmetric(tensor).permute(3, 0, 1, 2).numpy()
