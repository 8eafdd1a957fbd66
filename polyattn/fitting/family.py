"""The interface of a family of factored cores, and the code common to all of them.

Inside this stage a core is `T[d,f,h,b]`, a torch tensor in float64 with the modes query, key, value and output, the
order of the factors in the specifications; at other degrees one mode for each x, then the output. In a layer with
biases, the modes of the x's have one more entry, the constant 1 behind the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import FittingError

Ranks = tuple[int, ...]
Factors = list[Tensor]
Orders = tuple[tuple[int, ...], ...]
"""The permutations of the x's that leave the layer unchanged, the identity first."""
Weight = tuple[str, tuple[int | str, ...]]
"""A parameter's name and slots: the mode of its channels (the output's is 0), or the index of a rank."""
SYMMETRIES = ("pair", "shared", "none")
PAIR: Orders = ((0, 1, 2), (0, 2, 1))
"""Those of NL: key and value."""


@dataclass(frozen=True)
class Settings:
    """The settings of a fit.

    Attributes:
        orders: permutations of the x's up to which the core is fitted; a single one fits it as it is.
        shared: whether key and value have one matrix.
        starts: number of initial values.
        iterations: limit on the steps from each.
        seed: seed of the initial values.
        done: called after each start.
    """

    orders: Orders
    shared: bool
    starts: int
    iterations: int
    seed: int
    done: Callable[[], None]


@dataclass(frozen=True)
class Family:
    """One way to factor a core.

    Attributes:
        name: name of the catalogue's entry.
        names: names of the specification's parameters, in the order of the factors.
        most: the largest useful ranks for the core's modes.
        ladder: increasing choices of ranks for a core, for a search by budget or error.
        spec: the specification for ranks at NL's positions, with `mean`, `bias` and `shared`.
        weights: the parameters for ranks at any positions, and the number of each rank's index.
        rebuild: the core of factors.
        fit: the factors of a core at given ranks, and the error of each start.
        bias_axis: for each factor the axis of the channels; None for one without a bias.
        shares: whether key and value may have one matrix.
        left_out: the share of a core's square that each tuple of ranks leaves out, before any fit; None for a family
            whose ranks are one number.
    """

    name: str
    names: tuple[str, ...]
    most: Callable[[Ranks, Ranks], Ranks]
    ladder: Callable[[Tensor, Orders], list[Ranks]]
    spec: Callable[[Ranks, bool, bool, bool], Spec]
    weights: Callable[[Ranks, int], tuple[list[Weight], dict[str, int]]]
    rebuild: Callable[[Factors], Tensor]
    fit: Callable[[Tensor, Ranks, Settings], tuple[Factors, tuple[float, ...]]]
    bias_axis: tuple[int | None, ...]
    shares: bool = False
    left_out: Callable[[Tensor], np.ndarray] | None = None

    def check(self, ranks: Ranks, shape: Ranks) -> None:
        """Refuse ranks of a wrong number, or larger than any core of this shape needs.

        Raises:
            FittingError: bad ranks; names their limits and the shape.
        """
        limits = self.most(ranks, shape)
        whole = all(r >= 1 for r in ranks)
        if len(ranks) != len(limits) or not whole:
            wanted = "one positive whole number" if len(limits) == 1 else f"{len(limits)} positive whole numbers"
            raise FittingError(f"the rank of {self.name} is {wanted}, not {_bare(ranks)}")
        if any(r > limit for r, limit in zip(ranks, limits, strict=True)):
            raise FittingError(
                f"rank {_bare(ranks)} is too large for {self.name}: a core of shape {' x '.join(map(str, shape))} "
                f"needs at most {_bare(limits)}"
            )


def as_ranks(rank: Any, family: str) -> Ranks:
    """Return a rank or ranks as a tuple of whole numbers, numpy's included.

    Raises:
        FittingError: one is not a whole number.
    """
    given: tuple[Any, ...] = tuple(rank) if isinstance(rank, Iterable) and not isinstance(rank, str) else (rank,)
    try:
        if any(isinstance(r, bool | np.bool_) for r in given):
            raise TypeError
        return tuple(index(r) for r in given)
    except TypeError:
        raise FittingError(f"`rank` of {family} is positive whole numbers; found {rank!r}") from None


@contextmanager
def torch_backend() -> Iterator[None]:
    """Run tensorly on torch, in this thread and in this context only."""
    import tensorly

    with tensorly.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        yield


def _bare(ranks: Ranks) -> str:
    return str(ranks[0] if len(ranks) == 1 else ranks)


def letter(mode: int, degree: int) -> str:
    """Return the letter of the x's matrix in parameters' names: q, k and v, or numbers at higher degrees."""
    return "qkv"[mode - 1] if degree <= 3 else str(mode)


def projected(core: Tensor, orders: Orders) -> Tensor:
    """Project the core to its symmetric part over exchangeable x's, which determines the layer."""
    last = core.dim() - 1
    return core if len(orders) == 1 else torch.stack([core.permute(*o, last) for o in orders]).mean(0)


def symmetrised(core: np.ndarray, orders: Orders = PAIR) -> np.ndarray:
    """Symmetrise an array whose first mode is the output's."""
    return np.mean([core.transpose(0, *(k + 1 for k in o)) for o in orders], axis=0)


def relative(difference: Tensor, core: Tensor, orders: Orders) -> float:
    """Return the norm of a difference divided by that of the core, both of the symmetric parts."""
    norm = projected(core, orders).norm()
    return (projected(difference, orders).norm() / norm).item() if norm > 0 else difference.norm().item()


def completed(
    core: Tensor,
    decompose: Callable[[Tensor, Factors | None], Factors],
    rebuild: Callable[[Factors], Tensor],
    settings: Settings,
) -> list[Factors]:
    """Decompose the core as it is and, for exchangeable x's, with other antisymmetric parts.

    Any part that the orders average away gives the same layer. With that of the last approximation the next best one is
    never worse, so this descends: from the core as it is, and from its symmetric part.

    Args:
        decompose: decomposes a tensor, given the factors of a near one or None.
    """
    if len(settings.orders) == 1:
        settings.done()
        return [decompose(core, None)]
    found, middle = [], projected(core, settings.orders)
    for start in (core, middle):
        first = factors = decompose(start, None)
        before = float("inf")
        for _ in range(settings.iterations):
            rebuilt = rebuild(factors)
            error = (projected(rebuilt, settings.orders) - middle).norm().item()
            # Stop when a sweep gains next to nothing, or at an exact fit.
            if error > (1 - 1e-4) * before or error < 1e-12 * middle.norm().item():
                break
            before = error
            factors = decompose(middle + (rebuilt - projected(rebuilt, settings.orders)), factors)
        # Both, since the last iterate is best for the projected error but may start the descent in a worse basin.
        found += [factors, first]
        settings.done()
    return found


def polished(core: Tensor, factors: Factors, rebuild: Callable[[Factors], Tensor], settings: Settings) -> Factors:
    """Optimise all factors at once by L-BFGS; return them, or the given ones if these are better."""
    target = projected(core, settings.orders)
    # A zero core would divide by zero.
    norm = target.norm().clamp_min(torch.finfo(torch.float64).tiny)
    # Contiguous copies: L-BFGS flattens its parameters, and the caller's factors stay as they are.
    leaves = [f.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for f in factors]
    optimiser = torch.optim.LBFGS(
        leaves, max_iter=settings.iterations, history_size=20, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        return ((projected(rebuild(leaves), settings.orders) - target) / norm).square().sum()

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    after = [f.detach() for f in leaves]
    errors = [relative(rebuild(f) - core, core, settings.orders) for f in (factors, after)]
    return after if errors[1] < errors[0] else factors  # so that an error that is no number does not win


def decomposed(
    core: Tensor,
    decompose: Callable[[Tensor, Factors | None], Factors],
    rebuild: Callable[[Factors], Tensor],
    settings: Settings,
) -> tuple[Factors, tuple[float, ...]]:
    """Return the best of a decomposition's factors, polished unless they are exact, and the error of each candidate."""
    candidates = completed(core, decompose, rebuild, settings)
    errors = tuple(relative(rebuild(f) - core, core, settings.orders) for f in candidates)
    found = candidates[errors.index(min(errors))]
    return (found if min(errors) < 1e-12 else polished(core, found, rebuild, settings)), errors


def spectra_ladder(spectra: list[Tensor]) -> list[Ranks]:
    """Count the singular values above a falling threshold, relative to the largest of each unfolding."""
    # Relative to each unfolding's own largest value, or one mode would take all ranks.
    spectra = [s / s[0].clamp_min(torch.finfo(s.dtype).tiny) for s in spectra]
    thresholds = torch.cat(spectra).sort(descending=True).values
    # Values of the order of rounding are not a rank.
    thresholds = thresholds[thresholds > 1e-12].tolist()
    found = [tuple(max(1, int((s >= t).sum())) for s in spectra) for t in thresholds]
    return list(dict.fromkeys(found)) or [(1,) * len(spectra)]


def parameters_of(family: Family, factors: Factors, bias: bool, shared: bool = False) -> dict[str, np.ndarray]:
    """Return the parameters at NL's positions; the biases are the last entries along the channels."""
    found: dict[str, np.ndarray] = {}
    for name, axis, factor in zip(family.names, family.bias_axis, factors, strict=True):
        if shared and name == "wv":
            continue  # the key's
        array = factor.numpy()
        if bias and axis is not None:
            # The constant 1 is the last feature, so its weights are the bias.
            found[f"b{name[1]}"] = np.ascontiguousarray(array.take(-1, axis))
            array = array.take(range(array.shape[axis] - 1), axis)
        found[name] = np.ascontiguousarray(array)
    if bias:
        found["bo"] = np.zeros(found["wo"].shape[-1])
    return found
