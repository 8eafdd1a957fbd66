"""`chunked`: a layer on maps larger than memory, streamed piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from polyattn.errors import SizeError
from polyattn.nn.recompute import Gathering, Reduction, Replay, Stop, Total
from polyattn.nn.shard_module import copied, piecewise

Map = Tensor | np.ndarray
ARRAYS = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
"""Accepted array dtypes and the torch dtypes that they become."""


def chunked(module: nn.Module, positions: int = 2**18) -> Chunked:
    """Build a layer that streams its map through memory, about `positions` positions at a time.

    The layer's plan knows the steps with sums over positions. A first pass over the map computes those sums, and a
    second one applies them; a softmax over positions adds one pass for its maximum and one for its sum. The backward
    pass reads the map as often again and recomputes its intermediates. Memory is therefore that of one piece for any
    map size, and time is linear in the map.

    Args:
        module: as for `polyattn.parallel.shard_positions`. Its parameters are shared, not copied.
        positions: approximate number of positions in memory at once; pieces are whole rows of the first spatial axis.

    Returns:
        A module for tensors, with gradients; `Chunked.stream` and `Chunked.stream_backward` take numpy arrays, such as
        `numpy.memmap` of files.

    Raises:
        ShardingError: a layer needs positions of several pieces at once; names the layer and the reason.

    >>> from polyattn.nn import PolyNL
    >>> layer = chunked(PolyNL(8, beta=1.0), positions=10)
    >>> layer(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """
    return Chunked(module, positions)


class Chunked(nn.Module):
    """A layer on maps streamed piece by piece; see `chunked`.

    Calls share only the layer's parameters and running statistics, so they may be interrupted, run in parallel threads,
    and be nested.
    """

    def __init__(self, module: nn.Module, positions: int):
        super().__init__()
        if isinstance(positions, bool) or not isinstance(positions, int) or positions < 1:
            raise SizeError(f"`positions` must be a positive whole number, not {positions!r}")
        self.module, self.positions = module, positions
        # Building a twin once rejects unsupported layers here instead of at the first call.
        piecewise(module, Replay((), 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to a map (B, C, *spatial), with gradients for the map and the parameters.

        As for every autograd function, changing a parameter or the map in place before the backward pass raises an
        error there. The backward pass uses the mode (training or evaluation) and the autocast dtype of the call.

        Raises:
            SizeError: `x` is not a floating-point map with positions.
        """
        if not x.is_floating_point():
            raise SizeError(f"`x` must be of a floating dtype, not {x.dtype}")
        named = dict(self.module.named_parameters())
        training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *named.values()))
        return _Streamed.apply(self._call(x, training), self.module, x, *named.values())

    def stream(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Compute the layer on an array (B, C, *spatial) and write the result into another of its shape.

        Args:
            x: array of float16, float32 or float64.
            out: array that is written and returned; it may be `x` itself.

        Raises:
            SizeError: the arrays differ in shape or dtype, are not maps, or share a part of their memory.
        """
        self._check(x, out=out)
        if out is not x:
            _apart(out, x=x)
        with torch.no_grad():
            self._call(x, False).forward(self.module, x, list(self.module.parameters()), out)
        return out

    def stream_backward(self, x: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Run the backward pass for an input and the gradient of the layer's output.

        The parameters' gradients are added to their `.grad`.

        Args:
            x: of float16, float32 or float64.
            gradient: gradient of the layer's output.
            out: the input's gradient, written and returned; it may be `gradient` itself, but not `x`, which later
                passes read again.

        Raises:
            SizeError: the arrays differ in shape or dtype, are not maps, or share memory.
        """
        self._check(x, gradient=gradient, out=out)
        _apart(out, x=x, **({} if out is gradient else {"gradient": gradient}))
        named = dict(self.module.named_parameters())
        call = self._call(x, True)
        with torch.no_grad():
            # No gradients in the forward passes: each backward pass recomputes its piece.
            call = call.reduced(x, list(named.values()))
        totals = call.backward(x, list(named.values()), [p.requires_grad for p in named.values()], gradient, out)
        for own, found in zip(named.values(), totals, strict=True):
            if found is not None:
                own.grad = found if own.grad is None else own.grad + found
        return out

    def _call(self, x: Map, training: bool) -> _Call:
        if x.ndim < 3 or not all(x.shape[2:]):
            raise SizeError(f"`x` must have the shape (B, C, *spatial) and positions, not {tuple(x.shape)}")
        rest = prod(x.shape[3:])
        # A row longer than the limit still has to be one piece: the layer is sharded along the first spatial axis only.
        rows, each = x.shape[2], max(1, self.positions // rest)
        counts = tuple(min(each, rows - start) for start in range(0, rows, each))
        names = tuple(name for name, _ in self.module.named_parameters())
        # Copies: training may update running statistics between this call and its backward pass in evaluation mode.
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        kind = x.device.type if isinstance(x, Tensor) else "cpu"
        return _Call(copied(self.module), names, buffers, counts, rest, training, _autocast(kind))

    def _check(self, x: np.ndarray, **others: np.ndarray) -> None:
        if x.dtype not in ARRAYS:
            raise SizeError(f"`x` must be of float16, float32 or float64 in the machine's byte order, not {x.dtype}")
        for name, other in others.items():
            if other.shape != x.shape or other.dtype != x.dtype:
                raise SizeError(f"`x` and `{name}` differ: {x.shape} {x.dtype} and {other.shape} {other.dtype}")

    def extra_repr(self) -> str:
        return f"positions={self.positions}"


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, module: nn.Module, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.call, y = call.forward(module, x, parameters)
        assert isinstance(y, Tensor)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, *parameters = ctx.saved_tensors
        _, _, needed, *wanted = ctx.needs_input_grad
        found = torch.empty_like(x) if needed else None
        totals = ctx.call.backward(x, parameters, wanted, gradients[0], found)
        return None, None, found, *totals


@dataclass(frozen=True)
class _Call:
    """One call of a layer: everything its passes need besides the map and the parameters.

    Attributes:
        module: private copy of the layer with its modes at the time of the call.
        names: names of its parameters.
        buffers: values of its buffers.
        counts, rest: rows of each piece, and positions of a row.
        training: whether a backward pass follows.
        autocast: enters autocast with the settings of the call.
        known: the reductions over all pieces.
    """

    module: nn.Module
    names: tuple[str, ...]
    buffers: Mapping[str, Tensor]
    counts: tuple[int, ...]
    rest: int
    training: bool
    autocast: Callable[[], AbstractContextManager[Any]]
    known: tuple[Reduction, ...] = ()

    def forward(
        self, module: nn.Module, x: Map, parameters: Sequence[Tensor], out: Map | None = None
    ) -> tuple[_Call, Map]:
        """Run all passes; the last one writes the output. Then update the module's running statistics.

        Args:
            module: the layer itself.
            out: target of the output; by default a new tensor of its shape and dtype.
        """
        held = self._held(parameters)

        def write(number: int, y: Tensor) -> None:
            nonlocal out
            out = _alike(y, x) if out is None else out
            self._write(out, number, y)

        call = self.reduced(x, parameters, write)
        assert out is not None
        if any(isinstance(m, _BatchNorm) and m.training for m in self.module.modules()):
            # The first piece runs once more with the module's own buffers and counting on; all its reductions are known
            # by now, so the statistics are those of the whole map.
            call._run(held | dict(module.named_buffers()), self._piece(x, 0), 0, counting=True)
        return call, out

    def reduced(
        self, x: Map, parameters: Sequence[Tensor], write: Callable[[int, Tensor], None] | None = None
    ) -> _Call:
        """Return the call with all reductions completed, running one pass per reduction.

        The last pass, without a reduction, runs in full only if `write` is given.
        """
        call, held = self, self._held(parameters)
        while True:
            gathering = Gathering()
            for number in range(len(self.counts)):
                y, run = call._run(held, self._piece(x, number), number)
                if run.summand is not None:
                    gathering.add(run.summand)
                elif y is not None and write is not None:
                    write(number, y)
                else:
                    return call
            if gathering.total.value is None:
                return call
            call = replace(call, known=(*call.known, gathering.reduction()))

    def backward(
        self, x: Map, parameters: Sequence[Tensor], wanted: Sequence[bool], gradient: Map, out: Map | None
    ) -> list[Tensor | None]:
        """Run the backward passes: write the input's gradient, and return the wanted gradients of the parameters.

        The first pass goes from the output to the input, the parameters and all reductions; then each reduction in
        reverse order passes its gradient on to its summands in every piece.
        """
        given = [p.detach().requires_grad_(want) for p, want in zip(parameters, wanted, strict=True)]
        leaves = [p for p in given if p.requires_grad]
        totals, pushed = [Total() for _ in leaves], [Total() for _ in self.known]
        for stage in (None, *reversed(range(len(self.known)))):
            # In reverse order, later reductions have passed their gradients on: this one's is complete, or None for a
            # maximum without a gradient.
            if stage is not None and pushed[stage].value is None:
                continue
            for number in range(len(self.counts)):
                piece = self._piece(x, number).requires_grad_(out is not None)
                with torch.enable_grad():
                    y, run = self._run(self._held(given), piece, number, limit=stage)
                made = y if run.summand is None else run.summand.value
                seed = self._piece(gradient, number) if stage is None else pushed[stage].value
                assert made is not None
                results = [r for r in run.results if r.requires_grad]
                sources = [total for total, r in zip(pushed, run.results, strict=False) if r.requires_grad]
                inputs = [*([piece] if out is not None else []), *leaves, *results]
                found: Sequence[Tensor | None] = [None] * len(inputs)
                if made.requires_grad:
                    with torch.autocast(made.device.type, enabled=False):  # the caller's block may differ
                        found = torch.autograd.grad(made, inputs, seed, allow_unused=True)
                if out is not None:
                    own, *found = found
                    # The first stage overwrites `out` and later ones add to it, so a piece without a gradient has to
                    # write zeros.
                    own = torch.zeros_like(piece) if own is None else own
                    self._write(out, number, own if stage is None else self._piece(out, number) + own)
                for total, more in zip((*totals, *sources), found, strict=True):
                    if more is not None:
                        total.add(more)
        zeros = (torch.zeros_like(p) if t.value is None else t.value for t, p in zip(totals, leaves, strict=True))
        return [next(zeros) if want else None for want in wanted]

    def _run(
        self, held: Mapping[str, Tensor], piece: Tensor, number: int, limit: int | None = None, counting: bool = False
    ) -> tuple[Tensor | None, Replay]:
        """Run a piece up to its output, or to an unknown reduction or the limit; the output is then None.

        The piece is copied, as the layer may work in place.
        """
        options = {"limit": limit, "training": self.training, "counting": counting}
        run = Replay(self.counts, self.rest, number, self.known, **options)
        twin = piecewise(self.module, run)
        with self.autocast():
            try:
                return functional_call(twin, dict(held), (piece.clone(),)), run
            except Stop:
                return None, run

    def _held(self, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
        return {**dict(zip(self.names, parameters, strict=True)), **self.buffers}

    def _piece(self, source: Map, number: int) -> Tensor:
        rows = source[:, :, self._rows(number)]
        # np.array reads the rows into memory: torch.from_numpy refuses negative strides and warns of read-only memory
        # maps.
        return rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))

    def _write(self, target: Map, number: int, rows: Tensor) -> None:
        place = target[:, :, self._rows(number)]
        if place.shape != rows.shape:
            raise SizeError(f"the layer's output has {rows.shape[1]} channels, but `out` has {target.shape[1]}")
        if isinstance(place, Tensor):
            place.copy_(rows.detach())
        else:
            place[...] = rows.detach().to(ARRAYS[place.dtype]).numpy()

    def _rows(self, number: int) -> slice:
        start = sum(self.counts[:number])
        return slice(start, start + self.counts[number])


def _alike(y: Tensor, x: Map) -> Tensor:
    """Return an uninitialised map of all rows with y's channels and dtype, in the layout of x."""
    assert isinstance(x, Tensor)
    shape = (*y.shape[:2], *x.shape[2:])
    return torch.empty_like(x, dtype=y.dtype) if x.shape == shape else x.new_empty(shape, dtype=y.dtype)


def _autocast(device: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that re-enters the current autocast settings on a device type.

    The cast cache is off: parameter casts of one run belong to the graph of that run.
    """
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return partial(torch.autocast, device, enabled=enabled, dtype=dtype, cache_enabled=False)


def _apart(out: np.ndarray, **read: np.ndarray) -> None:
    """Check that the written array shares neither memory nor a range of a file with the arrays still to be read."""
    for name, array in read.items():
        one, other = _place(out), _place(array)
        if np.may_share_memory(out, array) or (one[0] == other[0] and one[1] < other[2] and other[1] < one[2]):
            raise SizeError(f"`out` shares memory with `{name}`, which is read again after it is written: pass a copy")


def _place(array: np.ndarray) -> tuple[Path | None, int, int]:
    """Return an array's location: the file behind a memory map (None for plain memory), its first byte and its end."""
    root: Any = array
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap):
        root = root.base
    # Strides may be negative (a reversed view), so both ends of the range are computed.
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    first = array.__array_interface__["data"][0]
    low, high = first + sum(min(0, s) for s in spans), first + sum(max(0, s) for s in spans) + array.itemsize
    if not isinstance(root, np.memmap) or root.filename is None:
        return None, low, high
    start = root.offset - root.__array_interface__["data"][0]
    return Path(root.filename).resolve(), low + start, high + start
