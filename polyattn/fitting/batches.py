"""The data of `compress`: tensors, arrays, loaders of (x, y), dicts, or anything that `forward` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from polyattn.errors import FittingError

Forward = Callable[[nn.Module, Any], Any]


def batches_of(data: Any, model: nn.Module) -> list[Any]:
    """Return the batches on the model's device; arrays become tensors, of floats in the model's precision.

    Raises:
        FittingError: `data` is empty or not iterable.
    """
    if isinstance(data, Tensor | np.ndarray | Mapping):
        found = [data]
    elif isinstance(data, Iterable):
        found = list(data)
    else:
        raise FittingError(
            f"`data` is a tensor, an array, a dict or an iterable of batches; found {type(data).__name__}"
        )
    if not found:
        raise FittingError("`data` has no batch; an iterator that was used up has none left, a loader or a list has")
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))

    def moved(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
            leaf = torch.as_tensor(leaf)
            leaf = leaf.to(like.dtype) if leaf.is_floating_point() else leaf
        return leaf.detach().to(like.device) if isinstance(leaf, Tensor) else leaf

    return [tree_map(moved, batch) for batch in found]


def call(model: nn.Module, batch: Any) -> Any:
    """Call the model on a batch: a dict by keyword, of a tuple or list such as (x, y) the first entry."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, tuple | list) else batch)


def in_double(batch: Any) -> Any:
    return tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, batch)


def outputs_of(model: nn.Module, batches: list[Any], forward: Forward) -> Tensor:
    """Return the model's outputs on all batches, along the first axis.

    Raises:
        FittingError: the output is not a tensor.
    """
    found = []
    for batch in batches:
        y = forward(model, batch)
        if not isinstance(y, Tensor):
            raise FittingError(
                f'fit_to="network" compares the model\'s outputs; found {type(y).__name__}: give `forward`, a function '
                "of the model and a batch that returns a tensor"
            )
        found.append(y)
    return torch.cat(found)
