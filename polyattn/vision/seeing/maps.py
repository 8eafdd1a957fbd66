"""Attention maps of BAT blocks: the weights of P and Q projected back to the feature map (BAT, Eq. 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from polyattn.errors import InsertError
from polyattn.nn import BATransform
from polyattn.nn.partition import cut, of_blocks
from polyattn.vision.trace import Hook, run


def bat_maps(model: nn.Module, *arguments: Any) -> dict[str, NDArray[np.float32]]:
    """Compute the map of Eq. 8, `W = Pᵀ A Qᵀ` with A all ones, of every BA-Transform in a network, per group.

    W[k, l] is the weight of position (k, l) in the result, summed over the result's positions. P and Q have the full
    resolution of the feature map, even if block-based. The mean of a map is 1.

    Args:
        model: a network with `polyattn.nn.BATBlock`s or `BATransform`s; it runs in eval mode and is restored.
        arguments: its input, (B, C, *spatial).

    Returns:
        Maps (B, groups, H, W), or (B, groups, T, H, W) for videos, by the name of the block's `BATransform`.

    Raises:
        InsertError: the network contains no BA-Transform with P and Q.
    """
    transforms = {m: name for name, m in model.named_modules() if isinstance(m, BATransform) and m.groups}
    if not transforms:
        raise InsertError("the model has no BA-Transform with P and Q to look at")
    found: dict[str, NDArray[np.float32]] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
        assert isinstance(module, BATransform)
        found[transforms[module]] = bat_map(module, inputs[0]).float().cpu().numpy()

    hooks: dict[nn.Module, Hook] = dict.fromkeys(transforms, look)
    run(model, *arguments, hooks=hooks)
    return found


def bat_map(transform: BATransform, x: Tensor) -> Tensor:
    """Compute the map of Eq. 8 of one transform for its input (B, C, [T,] H, W): (B, groups, [T,] H, W).

    As A is all ones, the map is the product of the column sums of P and the row sums of Q. With `downsample` it is the
    map at the blocks' resolution, upsampled bilinearly like the result.

    >>> from polyattn.nn import BATransform
    >>> bat_map(BATransform(8, groups=2, block_size=3).eval(), torch.randn(2, 8, 7, 9)).shape
    torch.Size([2, 2, 7, 9])
    """
    p, q = transform.matrices(x)
    if transform.downsample:
        small = _outer(p.sum(-2), q.sum(-1))
        if transform.dim == 2:
            return F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=False)
        return F.interpolate(small.transpose(1, 2), x.shape[2:], mode="trilinear", align_corners=False)
    rows = _column_sums(p, int(x.shape[-2]))
    # Columns of Q sum to 1, so its transpose has the form of P.
    columns = _column_sums(q.transpose(-1, -2), int(x.shape[-1]))
    weights = _outer(rows, columns)
    return weights if transform.dim == 2 else weights.transpose(1, 2)


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    return rows.unsqueeze(-1) * columns.unsqueeze(-2)


def _column_sums(matrix: Tensor, length: int) -> Tensor:
    """Return the column sums (..., length) of the resized form of matrices (..., S, S) whose rows sum to 1."""
    positions = cut(length, matrix.shape[-1])
    sums = []
    for part in positions.parts:
        some = of_blocks(matrix, part)
        if part.blocks is not None:  # part of the blocks: their rows sum to 1 again
            some = some / some.sum(-1, keepdim=True)
        sums.append(some.sum(-2).repeat_interleave(part.length // some.shape[-1], -1))
    together = torch.cat(sums, -1)
    return together if positions.inverse is None else together[..., list(positions.inverse)]
