"""What a family of factored cores has to know, and what all of them share.

Inside this stage a core is `T[d,f,h,b]`, a torch tensor in float64 whose modes are query, key, value and output: the
order of the factors in the specifications. Where a layer has biases, the first three modes have one entry more, the
constant 1 behind the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyattn.algebra import Spec
from polyattn.errors import FittingError

Ranks = tuple[int, ...]
Factors = list[Tensor]
SYMMETRIES = ("pair", "shared", "none")


@dataclass(frozen=True)
class Settings:
    """How a fit is done.

    Attributes:
        symmetry: "pair" fits the core up to what exchanging the two x at one position cannot change, "shared" also
            gives key and value one matrix, "none" fits the core as it is.
        starts: how many initial values are tried.
        iterations: the most steps from each.
        seed: of the initial values.
        done: called after each start.
    """

    symmetry: str
    starts: int
    iterations: int
    seed: int
    done: Callable[[], None]


@dataclass(frozen=True)
class Family:
    """One way to factor a core.

    Attributes:
        name: of the catalogue's entry.
        names: of the specification's parameters, in the order of the factors.
        ranks: the most that each rank may be, for the core's modes.
        ladder: increasing choices of ranks for a core, from which a budget or an error chooses.
        spec: the specification of ranks, with `mean`, `bias` and `shared`.
        rebuild: the core of factors.
        fit: the factors of a core at given ranks; the error that each start reached.
        bias_axis: for each factor the axis of the channels, and None for one that has no bias.
        shares: whether key and value may have one matrix.
    """

    name: str
    names: tuple[str, ...]
    most: Callable[[Ranks, Ranks], Ranks]
    ladder: Callable[[Tensor], list[Ranks]]
    spec: Callable[[Ranks, bool, bool, bool], Spec]
    rebuild: Callable[[Factors], Tensor]
    fit: Callable[[Tensor, Ranks, Settings], tuple[Factors, tuple[float, ...]]]
    bias_axis: tuple[int | None, ...]
    shares: bool = False

    def check(self, ranks: Ranks, shape: Ranks) -> None:
        """Refuse ranks of another number, or larger than any core of this shape has.

        Raises:
            FittingError: the ranks, the most that they may be, and the shape.
        """
        limits = self.most(ranks, shape)
        whole = all(isinstance(r, int) and not isinstance(r, bool) and r >= 1 for r in ranks)
        if len(ranks) != len(limits) or not whole:
            wanted = "one positive whole number" if len(limits) == 1 else f"{len(limits)} positive whole numbers"
            raise FittingError(f"the rank of {self.name} is {wanted}, not {_bare(ranks)}")
        if any(r > limit for r, limit in zip(ranks, limits, strict=True)):
            raise FittingError(
                f"rank {_bare(ranks)} is too large for {self.name}: a core of shape {' x '.join(map(str, shape))} "
                f"needs at most {_bare(limits)}"
            )


@contextmanager
def torch_backend() -> Iterator[None]:
    """tensorly on torch, in this thread and in here only."""
    import tensorly

    with tensorly.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        yield


def _bare(ranks: Ranks) -> str:
    return str(ranks[0] if len(ranks) == 1 else ranks)


def symmetric(core: Tensor) -> Tensor:
    """The core's symmetric part over key and value: all that the layer depends on."""
    return (core + core.transpose(1, 2)) / 2


def projected(core: Tensor, symmetry: str) -> Tensor:
    return core if symmetry == "none" else symmetric(core)


def relative(difference: Tensor, core: Tensor, symmetry: str) -> float:
    """The norm of a difference over that of the core, both of the parts that count."""
    norm = projected(core, symmetry).norm()
    return (projected(difference, symmetry).norm() / norm).item() if norm > 0 else difference.norm().item()


def completed(
    core: Tensor, decompose: Callable[[Tensor], Factors], rebuild: Callable[[Factors], Tensor], settings: Settings
) -> list[Factors]:
    """Decompositions of the core as it is and, where its x's are exchangeable, with other antisymmetric parts.

    Any antisymmetric part gives the same layer. Taking that of the last approximation never makes the next best one
    worse, so it descends: from the core as it is, and from its symmetric part.
    """
    if settings.symmetry == "none":
        settings.done()
        return [decompose(core)]
    found, middle = [], symmetric(core)
    for start in (core, middle):
        factors, before = decompose(start), float("inf")
        for _ in range(settings.iterations):
            rebuilt = rebuild(factors)
            error = (symmetric(rebuilt) - middle).norm().item()
            if error > (1 - 1e-4) * before or error < 1e-12 * middle.norm().item():
                break
            before = error
            factors = decompose(middle + (rebuilt - symmetric(rebuilt)))
        found += [factors, decompose(start)]
        settings.done()
    return found


def polished(core: Tensor, factors: Factors, rebuild: Callable[[Factors], Tensor], settings: Settings) -> Factors:
    """The factors after a descent by L-BFGS on all of them at once; never worse than before."""
    target = projected(core, settings.symmetry)
    norm = target.norm().clamp_min(torch.finfo(torch.float64).tiny)
    leaves = [f.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for f in factors]
    optimiser = torch.optim.LBFGS(
        leaves, max_iter=settings.iterations, history_size=20, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        return ((projected(rebuild(leaves), settings.symmetry) - target) / norm).square().sum()

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    after = [f.detach() for f in leaves]
    errors = [relative(rebuild(f) - core, core, settings.symmetry) for f in (factors, after)]
    return after if errors[1] < errors[0] else factors  # so that an error that is no number does not win


def decomposed(
    core: Tensor, decompose: Callable[[Tensor], Factors], rebuild: Callable[[Factors], Tensor], settings: Settings
) -> tuple[Factors, tuple[float, ...]]:
    """The best of a decomposition's factors, polished unless they are exact, and the error of each candidate."""
    candidates = completed(core, decompose, rebuild, settings)
    errors = tuple(relative(rebuild(f) - core, core, settings.symmetry) for f in candidates)
    found = candidates[errors.index(min(errors))]
    return (found if min(errors) < 1e-12 else polished(core, found, rebuild, settings)), errors


def spectra_ladder(spectra: list[Tensor]) -> list[Ranks]:
    """Ranks that count the singular values above a falling threshold, relative to the largest of each unfolding."""
    spectra = [s / s[0].clamp_min(torch.finfo(s.dtype).tiny) for s in spectra]
    thresholds = torch.cat(spectra).sort(descending=True).values
    thresholds = thresholds[thresholds > 1e-12].tolist()
    found = [tuple(max(1, int((s >= t).sum())) for s in spectra) for t in thresholds]
    return list(dict.fromkeys(found)) or [(1,) * len(spectra)]


def names_of(family: Family, factors: Factors) -> tuple[str, ...]:
    """The parameter of each factor; where key and value share one, there is no wv."""
    return family.names if len(factors) == len(family.names) else tuple(n for n in family.names if n != "wv")


def parameters_of(family: Family, factors: Factors, bias: bool) -> dict[str, np.ndarray]:
    """The specification's parameters, the biases being the last entries along the channels."""
    names = names_of(family, factors)
    axes = [family.bias_axis[family.names.index(n)] for n in names]
    found: dict[str, np.ndarray] = {}
    for name, axis, factor in zip(names, axes, factors, strict=True):
        array = factor.numpy()
        if bias and axis is not None:
            found[f"b{name[1]}"] = np.ascontiguousarray(array.take(-1, axis))
            array = array.take(range(array.shape[axis] - 1), axis)
        found[name] = np.ascontiguousarray(array)
    if bias:
        found["bo"] = np.zeros(found["wo"].shape[-1])
    return found
