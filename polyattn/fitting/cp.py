"""Canonical polyadic decomposition: several starts of tensorly's ALS, then Levenberg-Marquardt.

ALS alone can stay in a swamp for thousands of steps (Kolda & Bader, 2009, section 3.4). The damped Gauss-Newton step
has a matrix in closed form (Tomasi & Bro, 2006; Phan et al., 2013); it leaves the swamp and converges quadratically if
the rank is that of the core. A symmetric fit is a CP of more terms with tied factors: the symmetric part of
Σ u∘v∘w∘o is ½ Σ (u∘v∘w∘o + u∘w∘v∘o), so one routine does all three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import combinations
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor

from polyattn.catalog import get
from polyattn.fitting.family import (
    Factors,
    Family,
    Orders,
    Ranks,
    Settings,
    Weight,
    letter,
    projected,
    relative,
    torch_backend,
)

ALS_STEPS = 40
EXACT = 1e-11
MOST_UNKNOWNS = 700
"""Number of entries of all factors up to which a Gauss-Newton step is solved by its matrix; beyond, by conjugate
gradients on products with it."""
MOST_PRODUCTS = 100
"""Products with the matrix of a Gauss-Newton step."""


def rebuild(factors: Factors) -> Tensor:
    return _cp([*factors[:-1], factors[-1].T])


def fit(core: Tensor, ranks: Ranks, settings: Settings) -> tuple[Factors, tuple[float, ...]]:
    """Return the best factors of all starts, and each start's error."""
    found, errors = None, []
    for start in range(settings.starts):
        first = _start(core, ranks[0], settings, start)
        factors = marquardt(core, first, settings)
        errors.append(relative(rebuild(_untied(factors, settings)) - core, core, settings.orders))
        if found is None or errors[-1] < min(errors[:-1]):
            found = factors
        settings.done()
        # Further starts cannot improve on an exact fit.
        if errors[-1] < EXACT:
            break
    assert found is not None
    return _untied(_balanced(found, settings), settings), tuple(errors)


def _untied(factors: Factors, settings: Settings) -> Factors:
    """Return one factor for each mode: a shared one serves key and value."""
    return [*factors[:2], *factors[1:]] if settings.shared else factors


def _start(core: Tensor, rank: int, settings: Settings, number: int) -> Factors:
    """Return factors after some steps of ALS; the first start from singular vectors, the others from random ones."""
    from tensorly.decomposition import parafac

    # Odd starts see the symmetric part: another target, and so another basin, for the same function.
    target = projected(core, settings.orders) if number % 2 else core
    generator = torch.Generator().manual_seed(settings.seed * 7919 + number)
    random = [torch.randn(n, rank, generator=generator, dtype=core.dtype) for n in core.shape]
    with torch_backend():
        # Singular vectors can fill no more columns than the smallest mode has.
        init = "svd" if number == 0 and rank <= min(core.shape) else (None, random)
        try:
            options: dict[str, Any] = {"init": init, "n_iter_max": ALS_STEPS, "tol": 1e-9, "l2_reg": 1e-10}
            _, factors = parafac(target, rank, **options)
        except (RuntimeError, torch.linalg.LinAlgError):  # a singular step of ALS: its start is as good a start
            factors = random
    # ALS without enough damping may diverge.
    if not all(f.isfinite().all() for f in factors):
        factors = random
    *sides, out = factors
    if settings.shared:
        query, key, value = sides
        # The mean of key and value suits the symmetric target, the key alone the core as it is.
        sides = [query, (key + value) / 2 if number % 2 else key]
    return [*sides, out.T]


def marquardt(core: Tensor, factors: Factors, settings: Settings) -> Factors:
    """Take damped Gauss-Newton steps on all factors at once."""
    target = projected(core, settings.orders)
    norm = target.norm().item() or 1.0
    factors = _balanced(factors, settings)
    shapes = [f.shape for f in factors]
    tie = _tie(shapes, settings)
    theta = torch.cat([f.flatten() for f in factors])
    modes = _modes(theta, tie)
    residual = _cp(modes) - target
    loss, damping = residual.square().sum().item(), 1e-2
    for _ in range(settings.iterations):
        # By the chain rule through the tie, the tied CP's derivatives become those of the unknowns.
        gradient = _fold(torch.cat([g.flatten() for g in _mttkrp(residual, modes)]), tie, len(theta))
        steps = (
            _dense_steps(modes, tie, gradient)
            if len(theta) <= MOST_UNKNOWNS
            else _structured_steps(modes, tie, gradient, _split(theta, shapes), settings)
        )
        before = loss
        while damping < 1e12:
            step = steps(damping)
            if step is not None:
                moved = theta - step
                trial = _modes(moved, tie)
                difference = _cp(trial) - target
                value = difference.square().sum().item()
                # A step that helps lowers the damping towards Newton's method; a failed one raises it towards gradient
                # descent.
                if value < loss:
                    theta, modes, residual, loss, damping = moved, trial, difference, value, damping / 5
                    break
            damping *= 4
        # Stop at an exact fit, or when a step gains next to nothing.
        if loss**0.5 < EXACT * norm or before - loss < 1e-7 * before:
            break
        damping = max(damping, 1e-14)
    return _split(theta, shapes)


def _split(theta: Tensor, shapes: list[torch.Size]) -> Factors:
    return [part.reshape(shape) for part, shape in zip(theta.split([prod(s) for s in shapes]), shapes, strict=True)]


def _dense_steps(modes: Factors, tie: Tie, gradient: Tensor) -> Callable[[float], Tensor | None]:
    """Return the damped Gauss-Newton step for a damping, by Cholesky's method; None where it fails."""
    gram = _fold(_fold(_gauss_newton(modes), tie, len(gradient)).T, tie, len(gradient))
    # Relative to the diagonal, so that the damping does not depend on the core's scale.
    scale = gram.diagonal().mean().item() or 1.0

    def step(damping: float) -> Tensor | None:
        # Rescaling between factors leaves the CP unchanged: without damping the matrix is singular.
        damped = gram + damping * scale * torch.eye(len(gradient), dtype=gram.dtype)
        matrix, failed = torch.linalg.cholesky_ex(damped)
        return None if failed else torch.cholesky_solve(gradient[:, None], matrix)[:, 0]

    return step


def _structured_steps(
    modes: Factors, tie: Tie, gradient: Tensor, factors: Factors, settings: Settings
) -> Callable[[float], Tensor | None]:
    """Return the same step by conjugate gradients: a product with the matrix is one of small Gram matrices.

    Source: Tomasi & Bro, 2006; Sorber, Van Barel & De Lathauwer, Optimization-based algorithms for tensor
    decompositions, 2013, section 5. The preconditioner is each factor's own block.
    """
    grams = [m.T @ m for m in modes]
    count, every = len(modes), range(len(modes))
    pairs = {(j, k): _hadamard(grams, {j, k}) for j in every for k in every if j < k}
    own = [_hadamard(grams, {k}) for k in every]
    _, places, weights = tie
    scale = torch.zeros(len(gradient), dtype=gradient.dtype).index_add_(
        0, places, torch.cat([g.diagonal().expand(len(m), -1).flatten() for g, m in zip(own, modes, strict=True)])
        * weights.square(),
    ).mean().item() or 1.0  # fmt: skip

    def product(vector: Tensor) -> Tensor:
        moved = _modes(vector, tie)
        found = [v @ g for v, g in zip(moved, own, strict=True)]
        crossed = [m.T @ v for m, v in zip(modes, moved, strict=True)]
        for j in every:
            for k in range(j + 1, count):
                found[j] = found[j] + modes[j] @ (pairs[j, k] * crossed[k]).T
                found[k] = found[k] + modes[k] @ (pairs[j, k] * crossed[j]).T
        return _fold(torch.cat([f.flatten() for f in found]), tie, len(vector))

    columns = [*factors[:-1], factors[-1].T]
    small = [f.T @ f for f in columns]
    if settings.shared:
        small = [*small[:2], small[1], small[2]]
    kept = [k for k in range(len(small)) if not (settings.shared and k == 2)]

    def step(damping: float) -> Tensor | None:
        shift = damping * scale
        eye = torch.eye(len(small[0]), dtype=gradient.dtype)
        inverses = [torch.linalg.inv(_hadamard(small, {k}) + shift * eye) for k in kept]

        def preconditioned(vector: Tensor) -> Tensor:
            parts = _split(vector, [f.shape for f in factors])
            *sides, out = (
                p @ i if k < len(parts) - 1 else i @ p for k, (p, i) in enumerate(zip(parts, inverses, strict=True))
            )
            return torch.cat([p.flatten() for p in (*sides, out)])

        return _conjugate_gradients(lambda v: product(v) + shift * v, gradient, preconditioned)

    return step


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, preconditioned: Callable[[Tensor], Tensor]
) -> Tensor | None:
    found, rest = torch.zeros_like(right), right
    turned = preconditioned(rest)
    direction, own = turned, rest @ turned
    first = rest.norm().item()
    # The nearer to the solution of the whole problem, the more exact each step, for quadratic convergence.
    enough = first * min(1e-3, first)
    for _ in range(MOST_PRODUCTS):
        image = product(direction)
        curvature = direction @ image
        if not curvature > 0:
            break
        length = own / curvature
        found, rest = found + length * direction, rest - length * image
        if rest.norm().item() <= enough:
            break
        turned = preconditioned(rest)
        before, own = own, rest @ turned
        direction = turned + own / before * direction
    return found if found.isfinite().all() else None


def _hadamard(grams: list[Tensor], without: set[int]) -> Tensor:
    return reduce(mul, [g for j, g in enumerate(grams) if j not in without], torch.ones_like(grams[0]))


Tie = tuple[list[tuple[int, int]], Tensor, Tensor]
"""The shapes of the tied CP's factors, and for each of their entries its unknown and its weight."""


def _tie(shapes: list[torch.Size], settings: Settings) -> Tie:
    """Return the origin of each entry of the modes' factors (all of channels x terms)."""
    starts = [sum(prod(s) for s in shapes[:k]) for k in range(len(shapes))]
    places = [torch.arange(prod(s)).reshape(s) + at for s, at in zip(shapes, starts, strict=True)]
    places[-1] = places[-1].T
    orders = settings.orders
    if settings.shared:
        places, orders = _untied(places, settings), orders[:1]  # symmetric as it is
    *sides, out = places
    modes = [
        *(torch.cat([sides[o[k]] for o in orders], 1) for k in range(len(sides))),
        torch.cat([out] * len(orders), 1),
    ]
    # The mean over the orders: its weight goes to one mode only.
    scales = [1 / len(orders)] + [1.0] * len(sides)
    weights = torch.cat([torch.full((m.numel(),), s, dtype=torch.float64) for m, s in zip(modes, scales, strict=True)])
    return [(m.shape[0], m.shape[1]) for m in modes], torch.cat([m.flatten() for m in modes]), weights


def _modes(theta: Tensor, tie: Tie) -> Factors:
    shapes, places, weights = tie
    entries = (theta[places] * weights).split([prod(s) for s in shapes])
    return [e.reshape(s) for e, s in zip(entries, shapes, strict=True)]


def _fold(rows: Tensor, tie: Tie, unknowns: int) -> Tensor:
    """Add up derivatives by the tied CP's entries to derivatives by the unknowns, along the first axis."""
    _, places, weights = tie
    total = torch.zeros(unknowns, *rows.shape[1:], dtype=rows.dtype)
    return total.index_add_(0, places, rows * (weights if rows.dim() == 1 else weights[:, None]))


def _khatri_rao(factors: Factors) -> Tensor:
    return reduce(lambda a, b: (a[:, None] * b[None]).flatten(0, 1), factors)


def _cp(modes: Factors) -> Tensor:
    half = len(modes) // 2
    # Halves of the modes: one matrix product instead of an einsum over all of them.
    flat = _khatri_rao(modes[:half]) @ _khatri_rao(modes[half:]).T
    return flat.reshape([len(m) for m in modes])


def _mttkrp(residual: Tensor, modes: Factors) -> list[Tensor]:
    """Multiply the residual's unfolding along each mode by the Khatri-Rao product of the other factors."""
    half, shape = len(modes) // 2, residual.shape
    flat = residual.reshape(prod(shape[:half]), -1)
    found = []
    for own, matrix, others in ((modes[:half], flat, modes[half:]), (modes[half:], flat.T, modes[:half])):
        # The product with the other half is shared by all modes of this half.
        left = (matrix @ _khatri_rao(others)).reshape(*(len(m) for m in own), -1)
        for k in range(len(own)):
            part = left
            # From the last mode on, so that the positions of the earlier ones stay valid.
            for j in reversed(range(len(own))):
                if j != k:
                    factor = own[j].reshape(len(own[j]), *[1] * (k > j), -1)
                    part = (part * factor).sum(j)
            found.append(part)
    return found


def _gauss_newton(modes: Factors) -> Tensor:
    """Compute JᵀJ of the CP's entries by its factors' entries, in blocks of modes."""
    grams = [m.T @ m for m in modes]
    rank = len(grams[0])
    ends = [0]
    for m in modes:
        ends.append(ends[-1] + m.numel())
    total = torch.empty(ends[-1], ends[-1], dtype=modes[0].dtype)
    for k, m in enumerate(modes):
        others = reduce(mul, [g for j, g in enumerate(grams) if j != k])
        # A diagonal block is a Kronecker product of the identity with the Hadamard product of the other Gram matrices.
        block = torch.einsum("ij,rs->irjs", torch.eye(len(m), dtype=m.dtype), others)
        total[ends[k] : ends[k + 1], ends[k] : ends[k + 1]] = block.reshape(m.numel(), m.numel())
    for (j, a), (k, b) in combinations(enumerate(modes), 2):
        others = reduce(mul, [g for n, g in enumerate(grams) if n not in (j, k)], torch.ones_like(grams[0]))
        block = torch.einsum("is,lr,rs->irls", a, b, others).reshape(len(a) * rank, len(b) * rank)
        total[ends[j] : ends[j + 1], ends[k] : ends[k + 1]] = block
        total[ends[k] : ends[k + 1], ends[j] : ends[j + 1]] = block.T
    return total


def _balanced(factors: Factors, settings: Settings) -> Factors:
    """Spread each term's norm evenly over its factors, so that no factor is larger than necessary."""
    columns = [*factors[:-1], factors[-1].T]
    # A shared factor occurs twice in the product.
    powers = [1, 2, 1] if settings.shared else [1] * len(columns)
    norms = [c.norm(dim=0).clamp_min(1e-300) for c in columns]
    # In logarithms, since products of many norms overflow.
    total = torch.stack([n.log() * p for n, p in zip(norms, powers, strict=True)]).sum(0)
    mean = (total / sum(powers)).exp()
    columns = [c / n * mean for c, n in zip(columns, norms, strict=True)]
    return [*columns[:-1], columns[-1].T]


def _most(ranks: Ranks, shape: Ranks) -> Ranks:
    return (prod(shape) // max(shape),)


def _ladder(core: Tensor, _: Orders) -> list[Ranks]:
    return [(r,) for r in range(1, _most((), tuple(core.shape))[0] + 1)]


def _weights(ranks: Ranks, degree: int) -> tuple[list[Weight], dict[str, int]]:
    sides: list[Weight] = [(f"w{letter(m, degree)}", (m, "r")) for m in range(1, degree + 1)]
    return [*sides, ("wo", ("r", 0))], {"r": ranks[0]}


CP = Family(
    "cp_nl",
    ("wq", "wk", "wv", "wo"),
    _most,
    _ladder,
    lambda ranks, mean, bias, shared: get("cp_nl", rank=ranks[0], mean=mean, bias=bias, symmetric=shared),
    _weights,
    rebuild,
    fit,
    (0, 0, 0, None),
    shares=True,
)
