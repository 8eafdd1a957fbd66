"""1x1 convolutions as matrix products, in the way that is faster and takes less memory for the map at hand.

A product of channels-first maps, one for each element of the batch, takes them as they lie; but in training its
gradient has the weight's size once for each element, and with few positions each product is too thin to be fast. So
maps of few positions are turned first, and all their positions multiplied at once.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyattn.nn.block import convolve, matrix
from polyattn.runtime.layouts import is_channels_last

FEW_POSITIONS = 256
"""Below so many positions turning a map costs less than products of its elements one by one."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A map (B, inputs, *positions) through a matrix (outputs, inputs), in the layout of the map.

    On the CPU a matrix product is faster than torch's convolution, which copies the map to another layout; elsewhere
    it is left to the convolution.
    """
    if x.device.type == "cpu" or not x.numel():  # which torch's convolution does not take
        if is_channels_last(x):
            return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)
        columns = x.flatten(2)
        if columns.shape[2] >= FEW_POSITIONS or not x.numel() or not torch.is_grad_enabled():
            return times_columns(weight, bias, columns).unflatten(2, x.shape[2:])
    return convolve(x, weight.reshape(*weight.shape, *(1,) * (x.dim() - 2)), bias)


def turned_if_few(x: Tensor) -> Tensor:
    """A map (B, C, *positions) with its channels last on the CPU if its positions are few beside them, so that several
    1x1 convolutions in a row do not turn it and their results again and again."""
    if x.device.type != "cpu" or x.dim() == 3 or not x.numel() or not outnumber_positions(x.shape[1], x):
        return x
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def outnumber_positions(channels: int, x: Tensor) -> bool:
    """Whether there are many channels for each position of a map (B, C, *positions), as in ResNet's last stage: then
    matrices are large beside maps of a batch of some size, and better left as they are than copied."""
    return channels >= 8 * prod(x.shape[2:])


def projected(rows: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Rows (B, N, inputs) through several 1x1 convolutions: (B, N, outputs) of each."""
    weights = [matrix(layer).t() for layer in layers]
    biases = [layer.bias if isinstance(layer.bias, Tensor) else None for layer in layers]
    widths = [weight.shape[0] for weight in weights]
    if are_few(rows, sum(widths)):
        if _is_worth_turning_again(rows):
            return Turned.apply(rows, *weights, *biases)
        rows = rows.contiguous()
    elif rows.shape[1] >= 4 * sum(widths):  # weights side by side are small then: the map is passed over once
        given = [bias for bias in biases if bias is not None]
        return times_rows(torch.cat(weights), torch.cat(given) if given else None, rows).split(widths, 2)
    return tuple(times_rows(weight, bias, rows) for weight, bias in zip(weights, biases, strict=True))


def are_few(rows: Tensor, outputs: int) -> bool:
    """Whether rows (B, N, inputs) are better multiplied all at once, which takes a copy of channels-first ones, than
    for each element of the batch, where the gradient of the weight takes inputs x outputs for each element."""
    return rows.shape[1] < FEW_POSITIONS or (torch.is_grad_enabled() and rows.shape[1] < outputs)


def _is_worth_turning_again(rows: Tensor) -> bool:
    """Whether the copy of the rows would be kept for the backward pass, other than by a compiler, which decides on
    that itself, or in lower precision, which autocast chooses."""
    kept = torch.is_grad_enabled() and not rows.is_contiguous()
    return kept and not torch.compiler.is_compiling() and not torch.is_autocast_enabled(rows.device.type)


class Turned(torch.autograd.Function):
    """Channels-first rows (B, N, inputs) through matrices (outputs, inputs), all positions at once.

    What is kept for the backward pass is the map, which is there anyway, and not the copy in which its rows are
    contiguous: that is made again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, *given: Tensor | None) -> tuple[Tensor, ...]:
        half = len(given) // 2
        rows = rows.contiguous()
        return tuple(F.linear(rows, w, b) for w, b in zip(given[:half], given[half:], strict=True))  # pyright: ignore[reportArgumentType]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        kept = inputs[: 1 + len(output)]
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, *weights = ctx.saved_tensors
        needed, count = ctx.needs_input_grad, len(weights)
        flat = [gradient.flatten(0, 1) for gradient in gradients]
        of_rows = None
        if needed[0]:
            of_rows = flat[0] @ weights[0]
            for gradient, weight in zip(flat[1:], weights[1:], strict=True):
                of_rows = (
                    of_rows.addmm(gradient, weight) if torch.is_grad_enabled() else of_rows.addmm_(gradient, weight)
                )
            of_rows = of_rows.unflatten(0, rows.shape[:2])
        of_weights: list[Tensor | None] = [None] * count
        if any(needed[1 : 1 + count]):
            turned = rows.contiguous().flatten(0, 1)
            of_weights = [g.t() @ turned if one else None for g, one in zip(flat, needed[1 : 1 + count], strict=True)]
        of_biases = [g.sum(0) if one else None for g, one in zip(flat, needed[1 + count :], strict=True)]
        return of_rows, *of_weights, *of_biases

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        rows, *weights = ctx.saved_tensors
        moved, count = tangents[0], len(weights)
        found = []
        for weight, along, shift in zip(weights, tangents[1 : 1 + count], tangents[1 + count :], strict=True):
            y = rows.new_zeros(*rows.shape[:2], weight.shape[0]) if moved is None else F.linear(moved, weight)
            y = y if along is None else y + F.linear(rows, along)
            found.append(y if shift is None else y + shift)
        return tuple(found)


def times_rows(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """Rows (B, N, inputs) through a matrix (outputs, inputs), as they lie in memory: (B, N, outputs)."""
    if rows.is_contiguous():
        return F.linear(rows, weight, bias)
    matrices = weight.t().expand(rows.shape[0], -1, -1)
    return torch.bmm(rows, matrices) if bias is None else torch.baddbmm(bias, rows, matrices)


def times_columns(weight: Tensor, bias: Tensor | None, columns: Tensor) -> Tensor:
    """Columns (B, inputs, N) through a matrix (outputs, inputs): (B, outputs, N)."""
    matrices = weight.expand(columns.shape[0], -1, -1)
    return torch.bmm(matrices, columns) if bias is None else torch.baddbmm(bias[:, None], matrices, columns)
