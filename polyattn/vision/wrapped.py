"""`refuse_wrapped`: a network must be changed before it is compiled or distributed, not afterwards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from polyattn.errors import InsertError

WRAPPERS = {
    "torch._dynamo.eval_frame": ("OptimizedModule", "_orig_mod", "torch.compile"),
    "torch.nn.parallel.distributed": ("DistributedDataParallel", "module", "DistributedDataParallel"),
    "torch.distributed.fsdp": ("FullyShardedDataParallel", "module", "FSDP"),
}
"""Classes that took the network as it was, by the module that defines them: their attribute of it, and their name."""


def refuse_wrapped(model: nn.Module) -> None:
    """Check that the model is not wrapped, and that no wrapper is around it.

    A compiled network would run on without the attention, and a distributed one would not synchronise its parameters.

    Raises:
        InsertError: the model is compiled, or distributed.
    """
    kinds = {kind: (held, by) for kind, held, by in _loaded()}
    for module in model.modules():
        by = "torch.compile" if module._compiled_call_impl is not None else ""
        by = by or next((name for kind, (_, name) in kinds.items() if isinstance(module, kind)), "")
        if by or any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
            raise _refusal(by or "fully_shard")
    # Not `any`: a wrapper may have no truth value.
    if next(_around(model, kinds), None) is not None:
        gc.collect()  # a wrapper that was dropped is no wrapper
        for wrapper in _around(model, kinds):
            raise _refusal(next(by for kind, (_, by) in kinds.items() if isinstance(wrapper, kind)))


def _loaded() -> Iterator[tuple[type, str, str]]:
    for where, (name, held, by) in WRAPPERS.items():
        kind = getattr(sys.modules.get(where), name, None)
        if kind is not None:
            yield kind, held, by


def _around(model: nn.Module, kinds: dict[type, Any]) -> Iterator[nn.Module]:
    """Find wrappers that hold the model, or a part of it, or it as a part."""
    own, attribute = {*model.modules()}, dict[type, str]()
    for found in gc.get_objects():
        kind = type(found)
        if kind not in attribute:
            attribute[kind] = next((kinds[k][0] for k in kind.__mro__ if k in kinds), "")
        held = attribute[kind]
        inner = vars(found).get("_modules", {}).get(held) if held else None
        if inner is not None and (inner in own or model in inner.modules()):
            yield found


def _refusal(by: str) -> InsertError:
    return InsertError(f"`model` is wrapped by {by} already: insert first, then wrap the result")
