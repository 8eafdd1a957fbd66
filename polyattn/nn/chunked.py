"""`chunked`: a layer on maps that do not fit into memory, piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyattn.errors import SizeError
from polyattn.nn.norms import PieceBatchNorm
from polyattn.nn.piecewise import piecewise
from polyattn.nn.replay import Reduction, Replay, Stop

Map = Tensor | np.ndarray


def chunked(module: nn.Module, positions: int = 2**18) -> Chunked:
    """A layer that streams its map through memory, so many positions at a time.

    The layer's plan says which steps sum over positions. A first pass over the map makes those sums, and a second one
    applies them; a softmax over positions takes one pass more for its maximum and one for its sum. The backward pass
    reads the map as often again, computing what it needs anew. So memory is that of one piece, whatever the map's size,
    and time is linear in it.

    Args:
        module: as for `polyattn.parallel.shard_positions`. Its parameters are shared, not copied.
        positions: in memory at once, about; pieces are whole rows of the map's first spatial axis.

    Returns:
        A module for tensors, with gradients; `Chunked.stream` and `Chunked.stream_backward` take numpy arrays, such as
        `numpy.memmap` of files.

    Raises:
        ShardingError: the layer needs positions of several pieces at once; says which layer and why.

    >>> from polyattn.nn import PolyNL
    >>> layer = chunked(PolyNL(8, beta=1.0), positions=10)
    >>> layer(torch.ones(2, 8, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """
    return Chunked(module, positions)


class Chunked(nn.Module):
    """What `chunked` returns."""

    def __init__(self, module: nn.Module, positions: int):
        super().__init__()
        if isinstance(positions, bool) or not isinstance(positions, int) or positions < 1:
            raise SizeError(f"positions must be a positive whole number, not {positions!r}")
        self.module, self.positions = module, positions
        self.exchange = Replay(2)
        self.twins = (piecewise(module, self.exchange),)  # in a tuple: no submodule, it owns nothing

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) to the same shape, with gradients for the input and the parameters."""
        names, parameters = zip(*self.module.named_parameters(), strict=True)
        return _Streamed.apply(self, names, x, *parameters)

    def stream(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Compute the layer on an array (B, C, *spatial) and write the result into another of its shape; returns it.

        Raises:
            SizeError: the arrays differ in shape or dtype, or are no maps.
        """
        self._check(x, out)
        with torch.no_grad():
            _Run(self, x, dict(self.module.named_parameters())).forward(out)
        return out

    def stream_backward(self, x: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> np.ndarray:
        """The backward pass for an input and the gradient of the layer's output.

        Writes the input's gradient into `out` and adds the parameters' gradients to their `.grad`; returns `out`.

        Raises:
            SizeError: the arrays differ in shape or dtype, or are no maps.
        """
        self._check(x, gradient)
        self._check(x, out)
        parameters = dict(self.module.named_parameters())
        run = _Run(self, x, parameters)
        with torch.no_grad():
            run.reductions()
        for name, found in run.backward(gradient, out).items():
            own = parameters[name]
            own.grad = found if own.grad is None else own.grad + found
        return out

    def _check(self, x: np.ndarray, other: np.ndarray) -> None:
        if x.ndim < 3 or not x.size:
            raise SizeError(f"the map must have the shape (B, C, *spatial) and positions, not {x.shape}")
        if other.shape != x.shape or other.dtype != x.dtype:
            raise SizeError(f"the arrays differ: {x.shape} {x.dtype} and {other.shape} {other.dtype}")
        if np.may_share_memory(x, other) and x is not other:
            raise SizeError("the input and the output share memory")

    def extra_repr(self) -> str:
        return f"positions={self.positions}"


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Chunked, names: tuple[str, ...], x: Tensor, *parameters: Tensor) -> Tensor:
        out = torch.empty_like(x)
        run = _Run(layer, x, dict(zip(names, parameters, strict=True)))
        run.forward(out)
        ctx.save_for_backward(x)
        ctx.run, ctx.names = run, names
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        found = torch.empty_like(x)
        parameters = ctx.run.backward(gradients[0], found)
        return None, None, found, *(parameters.get(name) for name in ctx.names)


class _Run:
    """The passes over one map."""

    def __init__(self, layer: Chunked, x: Map, parameters: Mapping[str, Tensor]):
        self.x, self.exchange = x, layer.exchange
        (self.twin,) = layer.twins
        for mine, theirs in zip(self.twin.modules(), layer.module.modules(), strict=True):
            mine.training = theirs.training
        self.parameters = {name: p.detach() for name, p in parameters.items()}
        self.wanted = [name for name, p in parameters.items() if p.requires_grad]
        self.buffers = dict(layer.module.named_buffers())
        self.rest = prod(x.shape[3:])
        rows, each = x.shape[2], max(1, layer.positions // self.rest)
        self.counts = tuple(min(each, rows - start) for start in range(0, rows, each))
        self.known: list[Reduction] = []

    def forward(self, out: Map) -> None:
        """All passes; the last one writes the output."""
        open_ = True
        while open_:
            for number in range(len(self.counts)):
                y = self.run(number, self.piece(self.x, number))
                if y is not None:
                    write(out, sum(self.counts[:number]), y)
            open_ = self.exchange.close()
        if any(isinstance(m, PieceBatchNorm) and m.training for m in self.twin.modules()):
            self.run(0, self.piece(self.x, 0), counting=True)

    def reductions(self) -> None:
        """All passes but the last."""
        while self.run(0, self.piece(self.x, 0)) is None:
            for number in range(1, len(self.counts)):
                self.run(number, self.piece(self.x, number))
            self.exchange.close()

    def backward(self, gradient: Map, out: Map) -> dict[str, Tensor]:
        """The passes back: writes the input's gradient, and returns those of the parameters.

        The first goes from the output to the input, the parameters and all reductions; then each reduction in turn,
        the last first, hands on what it got to its summands in every piece.
        """
        parameters = {name: self.parameters[name].requires_grad_() for name in self.wanted}
        totals: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for reduction in self.known:
            reduction.gradient = None
        stages = [None, *range(len(self.known) - 1, -1, -1)]
        for stage in stages:
            if stage is not None and self.known[stage].gradient is None:
                continue
            for number in range(len(self.counts)):
                self.back_through(stage, number, gradient, out, parameters, totals)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        return totals

    def back_through(
        self,
        stage: int | None,
        number: int,
        gradient: Map,
        out: Map,
        parameters: dict[str, Tensor],
        totals: dict[str, Tensor],
    ) -> None:
        """One piece of one stage: from the output (None) or a reduction to whatever it was made of."""
        piece = self.piece(self.x, number).requires_grad_()
        with torch.enable_grad():
            y = self.run(number, piece, limit=stage)
        exchange = self.exchange
        made = y if stage is None else exchange.summands[stage]
        seed = self.piece(gradient, number) if stage is None else self.known[stage].gradient
        assert made is not None
        assert seed is not None
        sources = [(r, leaf) for r, leaf in zip(self.known, exchange.results, strict=False) if leaf.requires_grad]
        leaves = [piece, *parameters.values(), *(leaf for _, leaf in sources)]
        if made.requires_grad:
            found = torch.autograd.grad(made, leaves, seed, allow_unused=True)
        else:
            found = (None,) * len(leaves)
        own = found[0] if found[0] is not None else None
        if stage is None:
            write(out, sum(self.counts[:number]), torch.zeros_like(piece) if own is None else own)
        elif own is not None:
            write(out, sum(self.counts[:number]), self.piece(out, number) + own)
        for name, more in zip(parameters, found[1:], strict=False):
            if more is not None:
                totals[name] += more
        for (reduction, _), more in zip(sources, found[1 + len(parameters) :], strict=True):
            if more is not None:
                reduction.push(more)

    def run(self, number: int, piece: Tensor, *, limit: int | None = None, counting: bool = False) -> Tensor | None:
        """The output of a piece, or None where it came to a reduction that is not known, or to the limit."""
        exchange = self.exchange
        exchange.begin(self.known, limit)
        exchange.counts, exchange.rest, exchange.rank, exchange.counting = self.counts, self.rest, number, counting
        try:
            return functional_call(self.twin, {**self.parameters, **self.buffers}, (piece,))
        except Stop:
            return None

    def piece(self, source: Map, number: int) -> Tensor:
        start = sum(self.counts[:number])
        rows = source[:, :, start : start + self.counts[number]]
        return rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))


def write(target: Map, start: int, rows: Tensor) -> None:
    """Rows of a map, from `start` on."""
    piece = rows.detach()
    if isinstance(target, Tensor):
        target[:, :, start : start + rows.shape[2]] = piece
    else:
        target[:, :, start : start + rows.shape[2]] = piece.numpy()
