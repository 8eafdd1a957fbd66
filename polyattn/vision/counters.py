"""Handles for other counters of floating-point operations, which leave out what they have no rule for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.nn import Attention, Layer
from polyattn.nn.block import Block
from polyattn.runtime.counting import flop_counter

Handle = Callable[[Sequence[Any], Sequence[Any]], float]


def fvcore_handles() -> dict[str, Handle]:
    """Return handles for `FlopCountAnalysis.set_op_handle`, by the name of the operation.

    fvcore counts multiply-accumulates of the operations in the network's TorchScript trace, and has rules for most
    matrix products; these are those for the others that blocks of polyattn run.
    """
    return {
        "aten::baddbmm": lambda inputs, _: _product(inputs[1], inputs[2]),
        "aten::addbmm": lambda inputs, _: _product(inputs[1], inputs[2]),
        "aten::mv": lambda inputs, _: prod(_shape(inputs[0])),
        "aten::dot": lambda inputs, _: prod(_shape(inputs[0])),
        "aten::scaled_dot_product_attention": _attention,
    }


def _shape(value: Any) -> list[int]:
    """Return the shape of a value of a traced graph."""
    return value.type().sizes()


def _product(left: Any, right: Any) -> float:
    return prod(_shape(left)) * _shape(right)[-1]


def _attention(inputs: Sequence[Any], _: Sequence[Any]) -> float:
    query, key, value = map(_shape, inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def thop_ops() -> dict[type[nn.Module], Callable[[Any, tuple[Tensor, ...], Any], None]]:
    """Return `custom_ops` for `thop.profile`, which counts modules: each layer of polyattn as a whole.

    The layers stand inside a network there: of a model that is one layer itself, thop adds its submodules once more.
    """
    found: list[type[nn.Module]] = []
    waiting: list[type[nn.Module]] = [Attention, Layer, Block]
    while waiting:
        own = waiting.pop()
        found.append(own)
        waiting += own.__subclasses__()
    return dict.fromkeys(found, _count)


def _count(module: Any, x: tuple[Tensor, ...], _: Any) -> None:
    counter = flop_counter()
    with torch.no_grad(), counter:
        # `forward`, since a call would run this hook again.
        module.forward(*x)
    module.total_ops += counter.get_total_flops() // 2
