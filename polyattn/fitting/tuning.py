"""Fine-tuning a factored layer in the place of a trained one: on that layer's outputs, or on the network's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from polyattn.fitting.layers import FactoredNonLocal
from polyattn.nn import Attention

CHUNK = 256
"""Samples that run through a network at once where nothing is fitted."""


def attention_of(module: nn.Module) -> Attention:
    """What has the parameters of a factored layer."""
    assert isinstance(module, Attention | FactoredNonLocal)
    return module if isinstance(module, Attention) else module.attention


def replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the model with other modules in some places."""
    if "" in modules:
        return modules[""]
    made = copy.deepcopy(model)
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, module)
    return made


@torch.no_grad()
def outputs(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([run(part) for part in x.split(CHUNK)])


def error(run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The norm of the difference of outputs over that of the ones wanted."""
    return ((outputs(run, x) - y).norm() / y.norm().clamp_min(1e-30)).item()


def tune(
    module: nn.Module, whole: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int
) -> None:
    """Fit a factored layer's parameters so that `run`, which goes through it, has the outputs y.

    L-BFGS on all samples at once, in float64; what the parameters were stays where that was better.

    Args:
        module: the factored layer.
        whole: what `run` runs; its other parameters are left alone.
    """
    parameters = [p for _, p in attention_of(module)._parameters_of_spec()]
    kept, dtype = [p.detach().clone() for p in parameters], parameters[0].dtype
    whole.double()
    x, y = (t.double() if t.is_floating_point() else t for t in (x, y))
    scale = y.square().sum().clamp_min(1e-30)
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=steps, history_size=20, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        loss = (run(x) - y).square().sum() / scale
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
    if not after < before:
        with torch.no_grad():
            for parameter, old in zip(parameters, kept, strict=True):
                parameter.copy_(old)
