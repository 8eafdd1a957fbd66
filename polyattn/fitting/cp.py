"""Canonical polyadic decomposition: several starts of tensorly's ALS, then Levenberg-Marquardt.

ALS alone can stay in a swamp for thousands of steps (Kolda & Bader, 2009, section 3.4); the damped Gauss-Newton step,
whose matrix has a closed form (Tomasi & Bro, 2006; Phan et al., 2013), leaves it and converges quadratically where the
rank is that of the core. A symmetric fit is a CP of more terms whose factors are tied: the symmetric part of
Σ u∘v∘w∘o is ½ Σ (u∘v∘w∘o + u∘w∘v∘o), so one routine does all three.
"""

from __future__ import annotations

from itertools import combinations
from math import prod
from typing import Any

import torch
from torch import Tensor

from polyattn.catalog import get
from polyattn.fitting.family import Factors, Family, Ranks, Settings, polished, projected, relative, torch_backend

ALS_STEPS = 40
EXACT = 1e-11
MOST_UNKNOWNS = 2200
"""Up to this many entries of all factors a Gauss-Newton step is solved; beyond, L-BFGS is used."""


def rebuild(factors: Factors) -> Tensor:
    u, v, w, o = factors if len(factors) == 4 else (*factors[:2], factors[1], factors[2])
    left = (u[:, None, :] * v[None]).flatten(0, 1)
    right = (w[:, None, :] * o.T[None]).flatten(0, 1)
    return (left @ right.T).reshape(len(u), len(v), len(w), o.shape[1])


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    """The best factors of all starts, and each start's error."""
    found, errors = None, []
    unknowns = ranks[0] * (sum(core.shape) if settings.symmetry != "shared" else sum(core.shape) - core.shape[2])
    for start in range(settings.starts):
        first = _start(core, ranks[0], settings, start)
        if unknowns <= MOST_UNKNOWNS:
            factors = marquardt(core, first, settings)
        else:
            factors = polished(core, first, rebuild, settings)
        errors.append(relative(rebuild(factors) - core, core, settings.symmetry))
        if found is None or errors[-1] < min(errors[:-1]):
            found = factors
        settings.done()
        if errors[-1] < EXACT:
            break
    assert found is not None
    return _balanced(found), tuple(errors)


def _start(core: Tensor, rank: int, settings: Settings, number: int) -> Factors:
    """Factors after some steps of ALS; the first start from singular vectors, the others from random ones."""
    from tensorly.decomposition import parafac

    target = projected(core, settings.symmetry) if number % 2 else core
    generator = torch.Generator().manual_seed(settings.seed * 7919 + number)
    random = [torch.randn(n, rank, generator=generator, dtype=core.dtype) for n in core.shape]
    with torch_backend():
        init = "svd" if number == 0 and rank <= min(core.shape) else (None, random)
        try:
            options: dict[str, Any] = {"init": init, "n_iter_max": ALS_STEPS, "tol": 1e-9, "l2_reg": 1e-10}
            _, factors = parafac(target, rank, **options)
        except (RuntimeError, torch.linalg.LinAlgError):  # a singular step of ALS: its start is as good a start
            factors = random
    if not all(f.isfinite().all() for f in factors):
        factors = random
    u, v, w, o = factors
    return [u, (v + w) / 2 if number % 2 else v, o.T] if settings.symmetry == "shared" else [u, v, w, o.T]


def marquardt(core: Tensor, factors: Factors, settings: Settings) -> Factors:
    """Damped Gauss-Newton steps on all factors at once."""
    target = projected(core, settings.symmetry)
    norm = target.norm().item() or 1.0
    factors = _balanced(factors)
    shapes = [f.shape for f in factors]
    tie = _tie(shapes, settings.symmetry)
    theta = torch.cat([f.flatten() for f in factors])
    modes = _modes(theta, tie)
    residual = _cp(modes) - target
    loss, damping = residual.square().sum().item(), 1e-2
    for _ in range(settings.iterations):
        gradient = _fold(torch.cat([g.flatten() for g in _mttkrp(residual, modes)]), tie, len(theta))
        gram = _fold(_fold(_gauss_newton(modes), tie, len(theta)).T, tie, len(theta))
        scale = gram.diagonal().mean().item() or 1.0
        before = loss
        while damping < 1e12:
            damped = gram + damping * scale * torch.eye(len(theta), dtype=core.dtype)
            matrix, failed = torch.linalg.cholesky_ex(damped)
            if not failed:
                moved = theta - torch.cholesky_solve(gradient[:, None], matrix)[:, 0]
                trial = _modes(moved, tie)
                difference = _cp(trial) - target
                value = difference.square().sum().item()
                if value < loss:
                    theta, modes, residual, loss, damping = moved, trial, difference, value, damping / 5
                    break
            damping *= 4
        if loss**0.5 < EXACT * norm or before - loss < 1e-7 * before:
            break
        damping = max(damping, 1e-14)
    return [part.reshape(shape) for part, shape in zip(theta.split([prod(s) for s in shapes]), shapes, strict=True)]


Tie = tuple[list[tuple[int, int]], Tensor, Tensor]
"""The shapes of the factors of the tied CP, and for each of their entries the unknown that it is, and its factor."""


def _tie(shapes: list[torch.Size], symmetry: str) -> Tie:
    """Where each entry of the four mode factors (all of channels x terms) comes from."""
    starts = [sum(prod(s) for s in shapes[:k]) for k in range(len(shapes))]
    places = [torch.arange(prod(s)).reshape(s) + at for s, at in zip(shapes, starts, strict=True)]
    places[-1] = places[-1].T
    if symmetry == "shared":
        u, v, o = places
        modes, scales = [u, v, v, o], [1.0] * 4
    elif symmetry == "pair":
        u, v, w, o = places
        modes = [torch.cat(pair, 1) for pair in ((u, u), (v, w), (w, v), (o, o))]
        scales = [0.5, 1.0, 1.0, 1.0]
    else:
        modes, scales = places, [1.0] * 4
    weights = torch.cat([torch.full((m.numel(),), s, dtype=torch.float64) for m, s in zip(modes, scales, strict=True)])
    return [(m.shape[0], m.shape[1]) for m in modes], torch.cat([m.flatten() for m in modes]), weights


def _modes(theta: Tensor, tie: Tie) -> Factors:
    shapes, places, weights = tie
    entries = (theta[places] * weights).split([prod(s) for s in shapes])
    return [e.reshape(s) for e, s in zip(entries, shapes, strict=True)]


def _fold(rows: Tensor, tie: Tie, unknowns: int) -> Tensor:
    """Derivatives by the tied CP's entries, added up to derivatives by the unknowns, along the first axis."""
    _, places, weights = tie
    total = torch.zeros(unknowns, *rows.shape[1:], dtype=rows.dtype)
    return total.index_add_(0, places, rows * (weights if rows.dim() == 1 else weights[:, None]))


def _cp(modes: Factors) -> Tensor:
    return rebuild([*modes[:3], modes[3].T])


def _mttkrp(residual: Tensor, modes: Factors) -> list[Tensor]:
    """The residual's unfolding along each mode times the Khatri-Rao product of the other factors."""
    u, v, w, o = modes
    d, f, h, b = residual.shape
    right = residual.reshape(d * f, h * b) @ (w[:, None] * o[None]).flatten(0, 1)
    left = residual.reshape(d * f, h * b).T @ (u[:, None] * v[None]).flatten(0, 1)
    right, left = right.reshape(d, f, -1), left.reshape(h, b, -1)
    return [
        torch.einsum("dfr,fr->dr", right, v),
        torch.einsum("dfr,dr->fr", right, u),
        torch.einsum("hbr,br->hr", left, o),
        torch.einsum("hbr,hr->br", left, w),
    ]


def _gauss_newton(modes: Factors) -> Tensor:
    """JᵀJ of the CP's entries by its factors' entries, in blocks of modes."""
    grams = [m.T @ m for m in modes]
    rank = len(grams[0])
    ends = [0]
    for m in modes:
        ends.append(ends[-1] + m.numel())
    total = torch.empty(ends[-1], ends[-1], dtype=modes[0].dtype)
    for k, m in enumerate(modes):
        others = torch.stack([g for j, g in enumerate(grams) if j != k]).prod(0)
        block = torch.einsum("ij,rs->irjs", torch.eye(len(m), dtype=m.dtype), others)
        total[ends[k] : ends[k + 1], ends[k] : ends[k + 1]] = block.reshape(m.numel(), m.numel())
    for (j, a), (k, b) in combinations(enumerate(modes), 2):
        others = torch.stack([g for n, g in enumerate(grams) if n not in (j, k)]).prod(0)
        block = torch.einsum("is,lr,rs->irls", a, b, others).reshape(len(a) * rank, len(b) * rank)
        total[ends[j] : ends[j + 1], ends[k] : ends[k + 1]] = block
        total[ends[k] : ends[k + 1], ends[j] : ends[j + 1]] = block.T
    return total


def _balanced(factors: Factors) -> Factors:
    """Each term's norm spread evenly over its factors, so that no number is larger than it has to be."""
    columns = [*factors[:-1], factors[-1].T]
    powers = [1, 2, 1] if len(columns) == 3 else [1] * 4
    norms = [c.norm(dim=0).clamp_min(1e-300) for c in columns]
    mean = torch.stack([n.log() * p for n, p in zip(norms, powers, strict=True)]).sum(0).div(4).exp()
    columns = [c / n * mean for c, n in zip(columns, norms, strict=True)]
    return [*columns[:-1], columns[-1].T]


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    return (prod(shape) // max(shape),)


def _ladder(core: Tensor) -> list[Ranks]:
    return [(r,) for r in range(1, _most((), tuple(core.shape))[0] + 1)]


CP = Family(
    "cp_nl",
    ("wq", "wk", "wv", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, shared: get("cp_nl", rank=ranks[0], mean=mean, bias=bias, symmetric=shared),
    rebuild,
    fit,
    (0, 0, 0, None),
    shares=True,
)
