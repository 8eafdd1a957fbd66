"""Kernels run on a GPU where there is one, else in Triton's interpreter (chosen in the folder above)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from polyattn.kernels import runtime

pytest.importorskip("triton")

GUARD = 512


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Whatever kernels allocate is filled with NaN and lies between guard rows of NaN.

    Afterwards every element has been written, and no guard row.
    """
    made: list[tuple[Tensor, Tensor]] = []

    def strided(shape, stride, dtype, device) -> Tensor:
        count = 1
        for n in shape:
            count *= n
        buffer = torch.full((count + 2 * GUARD,), float("nan"), dtype=dtype, device=device)
        view = buffer.as_strided(tuple(shape), tuple(stride), GUARD)
        made.append((buffer, view))
        return view

    def allocate(shape, dtype, device) -> Tensor:
        return strided(shape, torch.empty(tuple(shape), device="meta").stride(), dtype, device)

    def allocate_like(x: Tensor) -> Tensor:
        return strided(x.shape, torch.empty_like(x).stride(), x.dtype, x.device)

    monkeypatch.setattr(runtime, "allocate", allocate)
    monkeypatch.setattr(runtime, "allocate_like", allocate_like)
    yield made
    assert made, "nothing was allocated through the runtime"
    check(made)


def check(made: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, view in made:
        assert not view.isnan().any(), "an element was not written"
        assert buffer[:GUARD].isnan().all(), "the guard before a result was written to"
        assert buffer[-GUARD:].isnan().all(), "the guard behind a result was written to"
