"""Fine-tuning of a factored layer that replaces a trained one: on that layer's outputs, or on the network's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from polyattn.fitting.scaling import exponent
from polyattn.fitting.surgery import attention_of, in_float64

CHUNK = 256
"""Samples in one forward pass outside of fits."""


@torch.no_grad()
def in_parts(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    # In parts, since a large map may not be held for all samples at once.
    return torch.cat([run(part) for part in x.split(CHUNK)])


def error(found: Tensor, wanted: Tensor) -> float:
    """Return the norm of the outputs' difference relative to that of the wanted ones, at any scale."""
    k = exponent(wanted.cpu().double())
    found, wanted = (t.double() * 2.0 ** -(k // 2) * 2.0 ** -(k - k // 2) for t in (found, wanted))
    return ((found - wanted).norm() / wanted.norm()).item()


def tune(module: nn.Module, whole: nn.Module, run: Callable[[], Tensor], y: Tensor, steps: int) -> None:
    """Fit a factored layer's parameters to the outputs y of `run`, which contains the layer.

    L-BFGS on all samples at once, in float64; the old parameters are kept if the new ones are not better. Each
    parameter is divided by its largest entry, and the outputs by a power of two: the steps are the same for parameters
    and data of any scale.

    Args:
        module: the factored layer.
        whole: the module behind `run`; its other parameters are left unchanged.
    """
    parameters = [p for _, p in attention_of(module)._parameters_of_spec()]
    trainable = [p.requires_grad for p in parameters]
    with in_float64(whole):
        for parameter in parameters:
            parameter.requires_grad_()
        kept = [p.detach().clone() for p in parameters]
        scales = [k.abs().max().item() or 1.0 for k in kept]
        unknowns = [(k / s).requires_grad_() for k, s in zip(kept, scales, strict=True)]
        k = exponent(y.cpu())
        # In two steps, since the power itself may leave the range of floats.
        half, rest = 2.0 ** -(k // 2), 2.0 ** -(k - k // 2)
        goal = y * half * rest
        norm = goal.square().sum()
        # float64: the line search compares losses that differ in the last digits of float32.
        optimiser = torch.optim.LBFGS(
            unknowns, max_iter=steps, history_size=20, tolerance_grad=0, tolerance_change=0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        @torch.no_grad()
        def put(values: list[Tensor]) -> None:
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)

        def closure() -> Tensor:
            put([u.detach() * s for u, s in zip(unknowns, scales, strict=True)])
            loss = (run() * half * rest - goal).square().sum() / norm
            # Gradients of these parameters only: those of the rest of the network are neither needed nor touched.
            found = torch.autograd.grad(loss, parameters)
            for unknown, gradient, scale in zip(unknowns, found, scales, strict=True):
                unknown.grad = gradient.contiguous() * scale
            return loss.detach()

        with torch.enable_grad():
            before = closure().item()
            optimiser.step(closure)  # pyright: ignore[reportArgumentType]
            after = closure().item()
        # Also for a loss that is not finite, which compares false.
        if not after < before:
            put(kept)
    for parameter, own in zip(parameters, trainable, strict=True):
        parameter.requires_grad_(own)
