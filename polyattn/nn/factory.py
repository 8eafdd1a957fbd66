"""`as_factory`: `device`, `dtype` and `generator` for constructors of modules that are made of torch's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from inspect import isfunction, signature
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

MADE = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
DRAWN = {Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_, torch.rand, torch.randn}
# torch hands its initialisers over whole, without the draws inside.
DRAWN |= {f for f in vars(init).values() if isfunction(f) and "generator" in signature(f).parameters}

Constructor = TypeVar("Constructor", bound=Callable[..., None])


class _Factory(TorchFunctionMode):
    """New tensors get a dtype, and random numbers a generator, where the call does not say."""

    def __init__(self, dtype: torch.dtype | None, generator: torch.Generator | None):
        super().__init__()
        self.dtype, self.generator = dtype, generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.dtype is not None and func in MADE and kwargs.get("dtype") is None:
            kwargs["dtype"] = self.dtype
        if self.generator is not None and func in DRAWN and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def as_factory(constructor: Constructor) -> Constructor:
    """Wrap a constructor so that its parameters and buffers are made on `device`, in `dtype`, drawn from `generator`.

    The constructor has these keyword arguments, None by default, and need not read them.
    """

    @wraps(constructor)
    def made(self: Any, *args: Any, **named: Any) -> None:
        device, dtype, generator = (named.get(name) for name in ("device", "dtype", "generator"))
        with nullcontext() if device is None else torch.device(device), _Factory(dtype, generator):
            constructor(self, *args, **named)

    return made  # pyright: ignore[reportReturnType]
