"""1x1 convolutions as matrix products, in the faster and smaller form for the map at hand.

A batched product reads channels-first maps without a copy. In training, however, the gradient of the weight is then
computed once per batch element, and with few positions each product is too thin to be fast. Maps of few positions are
therefore transposed first, and all positions multiplied at once.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyattn.kernels.runtime import autocast_dtype
from polyattn.lowering.functions import is_traced
from polyattn.nn.block import convolve, matrix
from polyattn.nn.open_cut import is_open
from polyattn.runtime.layouts import as_map, is_channels_last

FEW_POSITIONS = 256
"""Number of positions below which a transposed copy costs less than one product per batch element."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply a map (B, inputs, *positions) by a matrix (outputs, inputs), keeping the map's layout.

    On the CPU a matrix product is faster than torch's convolution, which copies the map to another layout; elsewhere
    it is left to the convolution.
    """
    if x.device.type == "cpu" or not x.numel():  # torch's convolution rejects empty maps
        if is_channels_last(x):
            return F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)
        columns = x.flatten(2)
        # Without gradients, the batched product has no weight gradient per element to pay for.
        many = is_open(columns.shape[2]) or columns.shape[2] >= FEW_POSITIONS
        if many or not x.numel() or not torch.is_grad_enabled():
            return as_map(times_columns(weight, bias, columns), x)
    return convolve(x, weight.reshape(*weight.shape, *(1,) * (x.dim() - 2)), bias)


def turned_if_few(x: Tensor) -> Tensor:
    """Return a map (B, C, *positions) as channels-last on the CPU if its positions are few beside its channels.

    Several 1x1 convolutions in a row then need no transposed copy of the map and of each result.
    """
    if x.device.type != "cpu" or x.dim() == 3 or not x.numel() or not outnumber_positions(x.shape[1], x):
        return x
    # torch has a channels-last format for 4D and for 5D maps; 3D maps have returned above.
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def outnumber_positions(channels: int, x: Tensor) -> bool:
    """Return whether a map (B, C, *positions) has at least 8 channels per position, as in ResNet's last stage.

    Matrices are then large beside such maps, and better used as they are than copied.
    """
    return not is_open(*x.shape[2:]) and channels >= 8 * prod(x.shape[2:])


def projected(rows: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Apply several 1x1 convolutions to rows (B, N, inputs): (B, N, outputs) of each."""
    # `matrix` is (inner, outer); F.linear takes (outputs, inputs). Both are views of the parameter.
    weights = [matrix(layer).t() for layer in layers]
    biases = [layer.bias if isinstance(layer.bias, Tensor) else None for layer in layers]
    widths = [weight.shape[0] for weight in weights]
    if are_few(rows, sum(widths)):
        if _is_worth_turning_again(rows):
            return Turned.apply(rows, *weights, *biases)
        rows = rows.contiguous()
    elif is_open(rows.shape[1]) or rows.shape[1] >= 4 * sum(widths):
        # Concatenated weights are small beside the map, which is read once.
        given = [bias for bias in biases if bias is not None]
        return times_rows(torch.cat(weights), torch.cat(given) if given else None, rows).split(widths, 2)
    return tuple(times_rows(weight, bias, rows) for weight, bias in zip(weights, biases, strict=True))


def are_few(rows: Tensor, outputs: int) -> bool:
    """Return whether rows (B, N, inputs) are better multiplied all at once than per batch element.

    All at once needs a contiguous copy of channels-first rows; per element, the gradient of the weight takes inputs x
    outputs numbers for each element.
    """
    if is_open(rows.shape[1]):
        return False
    return rows.shape[1] < FEW_POSITIONS or (torch.is_grad_enabled() and rows.shape[1] < outputs)


def _is_worth_turning_again(rows: Tensor) -> bool:
    """Return whether autograd would keep the contiguous copy of the rows for the backward pass.

    Excluded are compilers, which decide on recomputation themselves, and autocast, which chooses the dtype of the copy.
    """
    kept = torch.is_grad_enabled() and not rows.is_contiguous()
    return kept and not torch.compiler.is_compiling() and autocast_dtype(rows) is None


class Turned(torch.autograd.Function):
    """Product of channels-first rows (B, N, inputs) with matrices (outputs, inputs), all positions at once.

    The backward pass keeps only the map, which is alive anyway, and recomputes the contiguous copy of its rows.
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
        # `reshape`, because batched gradients (`is_grads_batched`) have no rule for `flatten`.
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        of_rows = None
        if needed[0]:
            of_rows = flat[0] @ weights[0]
            for gradient, weight in zip(flat[1:], weights[1:], strict=True):
                of_rows = (
                    # In place, without another map, unless the backward pass itself is recorded.
                    of_rows.addmm(gradient, weight) if torch.is_grad_enabled() else of_rows.addmm_(gradient, weight)
                )
            of_rows = of_rows.reshape(rows.shape)
        of_weights: list[Tensor | None] = [None] * count
        if any(needed[1 : 1 + count]):
            # The copy from the forward pass, recomputed here once for all weights.
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
    """Multiply rows (B, N, inputs) by a matrix (outputs, inputs), in the memory order of the rows: (B, N, outputs)."""
    if rows.is_contiguous():
        return F.linear(rows, weight, bias)
    # Stride 0 along the batch: one weight serves all elements, and bmm takes transposed rows as they lie.
    matrices = weight.t().expand(rows.shape[0], -1, -1)
    return torch.bmm(rows, matrices) if bias is None else torch.baddbmm(bias, rows, matrices)


def times_columns(weight: Tensor, bias: Tensor | None, columns: Tensor) -> Tensor:
    """Multiply a matrix (outputs, inputs) by columns (B, inputs, N): (B, outputs, N)."""
    if is_traced():
        # The ONNX exporter on `torch.jit.trace` makes a constant of the batch to which a matrix is expanded.
        y = torch.matmul(weight, columns)
        return y if bias is None else y + bias[:, None]
    matrices = weight.expand(columns.shape[0], -1, -1)
    return torch.bmm(matrices, columns) if bias is None else torch.baddbmm(bias[:, None], matrices, columns)
