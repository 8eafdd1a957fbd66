"""Fine-tuning of a factored layer that replaces a trained one: on that layer's outputs, or on the network's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from polyattn.fitting.layers import FactoredNonLocal
from polyattn.nn import Attention

CHUNK = 256
"""Samples in one forward pass outside of fits."""


def attention_of(module: nn.Module) -> Attention:
    """Return the module with the parameters of a factored layer."""
    assert isinstance(module, Attention | FactoredNonLocal)
    return module if isinstance(module, Attention) else module.attention


def replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Copy the model with some modules replaced."""
    if "" in modules:
        return modules[""]
    made = copy.deepcopy(model)
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, module)
    return made


@torch.no_grad()
def outputs(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    # In parts, since a large network may not hold all samples at once.
    return torch.cat([run(part) for part in x.split(CHUNK)])


def error(run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Return the norm of the outputs' difference relative to that of the wanted ones."""
    return ((outputs(run, x) - y).norm() / y.norm().clamp_min(1e-30)).item()


def tune(
    module: nn.Module, whole: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int
) -> None:
    """Fit a factored layer's parameters to the outputs y of `run`, which contains the layer.

    L-BFGS on all samples at once, in float64; the old parameters are kept if the new ones are not better.

    Args:
        module: the factored layer.
        whole: the module behind `run`; its other parameters are left unchanged.
    """
    parameters = [p for _, p in attention_of(module)._parameters_of_spec()]
    kept, dtype = [p.detach().clone() for p in parameters], parameters[0].dtype
    # float64: the line search compares losses that differ in the last digits of float32.
    whole.double()
    x, y = (t.double() if t.is_floating_point() else t for t in (x, y))
    scale = y.square().sum().clamp_min(1e-30)
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=steps, history_size=20, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        loss = (run(x) - y).square().sum() / scale
        # Gradients of these parameters only: those of the rest of the network are neither needed nor touched.
        found = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient.contiguous()
        return loss.detach()

    with torch.enable_grad():
        before = closure().item()
        optimiser.step(closure)  # pyright: ignore[reportArgumentType]
        after = closure().item()
    optimiser.zero_grad()
    whole.to(dtype)
    # Also for a loss that is not finite, which compares false.
    if not after < before:
        with torch.no_grad():
            for parameter, old in zip(parameters, kept, strict=True):
                parameter.copy_(old)
