"""`shard_positions`: a layer on feature maps sharded over devices by positions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.func import functional_call

from polyattn.errors import PolyattnError, ShardingError, SizeError
from polyattn.nn.shard_module import piecewise
from polyattn.parallel.agreement import agreed
from polyattn.parallel.collectives import Collectives, Replicate
from polyattn.parallel.communication import Communication, communication, even_counts
from polyattn.planning import Link


def shard_positions(
    module: nn.Module,
    mesh: DeviceMesh,
    *,
    dim: int = 2,
    counts: Sequence[int] | None = None,
    link: Link | None = None,
    reduce_gradients: bool = True,
) -> ShardedPositions:
    """Build a layer for maps with positions sharded over a device mesh.

    Each process passes its own rows along `dim` and gets the same rows of the result; shards may differ in length, and
    be empty. The plan's sums over positions become all-reduces, so communication does not grow with the map: C numbers
    per sample for Poly-NL, R x S for E-NL. The cost of an order of contraction includes its communication. The bilinear
    transform of a `BATransform` or `BATBlock` mixes rows with rows: with `downsample` it all-reduces the averages of
    its blocks, otherwise it reshards the map by channels and back, by two all-to-alls.

    Args:
        module: an `Attention`, a block of `polyattn.nn` without similarities of positions, or an `nn.Sequential` of
            such, of 1x1 convolutions, norms, activations and dropout of channels. Its parameters are shared, not
            copied, and are the same on all devices.
        mesh: with one axis (of a larger mesh, `mesh["name"]`).
        dim: the sharded axis of (B, C, *spatial). 1 shards the channels, in whole groups of channels; this communicates
            less than a map only for an `Attention` with products within channels, such as `catalog.ba_transform`.
        counts: number of rows of each process, if known; required by a compiled layer. Settable later as the attribute
            `counts`. Not needed for a `DTensor`.
        link: the link between devices, for the choice of the order of contraction.
        reduce_gradients: whether gradients of parameters are all-reduced over the mesh. Otherwise each device has one
            summand, left to a data-parallel wrapper over a larger mesh (DDP, FSDP2); it must sum, not average, over
            this axis.

    Returns:
        A module that takes and returns local tensors, or `DTensor`s with `Shard(dim)`.

    Raises:
        ShardingError: a layer needs positions of several devices at once; names the layer and the reason. For an
            `Attention`, whose plan depends on the sizes, at the first call.
    """
    return ShardedPositions(module, mesh, dim, counts, link or Link(), reduce_gradients)


class ShardedPositions(nn.Module):
    """A layer with sharded positions, built by `shard_positions`.

    Attributes:
        module: the unsharded layer.
        counts: number of rows of each process, or None to agree on it at each call.
    """

    def __init__(
        self,
        module: nn.Module,
        mesh: DeviceMesh,
        dim: int,
        counts: Sequence[int] | None,
        link: Link,
        reduce_gradients: bool,
    ):
        super().__init__()
        if mesh.ndim != 1:
            raise ShardingError(f"the mesh must have one axis, not {mesh.ndim}: take one, as in mesh['name']")
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise ShardingError(f"dim must be an axis of (B, C, *spatial), 1 (channels) or more, not {dim!r}")
        self.module, self.mesh, self.dim, self.link = module, mesh, dim, link
        self.reduce_gradients = reduce_gradients
        self.counts = None if counts is None else tuple(counts)
        self._last: tuple[int, ...] | None = None
        # Building a twin once rejects unsupported layers here instead of at the first call.
        piecewise(module, Collectives(mesh, dim), link)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to this process's rows (B, C, *spatial), or to a map as a `DTensor`.

        Raises:
            ShardingError: the processes' shards, modes or `counts` contradict each other; raised on all of them, before
                the layer communicates.
            SizeError: the shard is not a floating-point map, or its rows differ from `counts`.
        """
        piece = x.to_local() if isinstance(x, DTensor) else x
        counts = self._agreed(x, piece)
        rest = self._rest(piece)
        # A single shard may be empty, so only the whole map is checked for positions.
        if not sum(counts) or not rest:
            raise SizeError(f"the map has no positions: a piece has the shape {tuple(piece.shape)}")
        self._last = (*piece.shape[: self.dim], sum(counts), *piece.shape[self.dim + 1 :])
        # A twin per call: concurrent calls then share neither exchange nor mode.
        twin = piecewise(self.module, Collectives(self.mesh, self.dim, counts, rest), self.link)
        y = functional_call(twin, {**self._parameters_here(), **dict(self.module.named_buffers())}, (piece,))
        if isinstance(x, DTensor):
            # run_check=True would communicate again; `agreed` has checked the shards.
            return DTensor.from_local(y, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride())
        return y

    def _agreed(self, x: Tensor, piece: Tensor) -> tuple[int, ...]:
        """Return the number of rows of each process.

        A compiler cannot branch on received values, so a compiled layer takes `counts` as given.
        """
        if self.counts is not None and torch.compiler.is_compiling():
            return self._checked(x, piece) or self.counts
        counts, fault = self.counts, None
        try:
            counts = self._checked(x, piece)
        except PolyattnError as error:
            # Raised by `agreed` after the all-reduce, so that the other processes do not wait for this one.
            fault = error
        return agreed(piece, self.module, counts, self.dim, self.mesh, fault)

    def communication(self, shape: Sequence[int] | None = None) -> Communication:
        """Count the communication of one call by layer, forward and backward, without sending.

        Args:
            shape: shape of the whole map, (B, C, *spatial); by default that of the last call.
        """
        if shape is None:
            if self._last is None:
                raise SizeError("communication() needs the shape of the whole map before the first call")
            shape = self._last
        return communication(
            self.module,
            tuple(shape),
            self.mesh.size(),
            dim=self.dim,
            link=self.link,
            device=self.mesh.device_type,
            reduce_gradients=self.reduce_gradients,
        )

    def _parameters_here(self) -> dict[str, Tensor]:
        named = dict(self.module.named_parameters())
        if not (self.reduce_gradients and named and torch.is_grad_enabled()):
            return dict(named)
        # One autograd node for all parameters, so that their gradients are all-reduced together.
        return dict(zip(named, Replicate.apply(self.mesh, *named.values()), strict=True))

    def _rest(self, x: Tensor) -> int:
        """Return the number of positions per row."""
        return prod([n for axis, n in enumerate(x.shape[2:], 2) if axis != self.dim])

    def _checked(self, x: Tensor, piece: Tensor) -> tuple[int, ...] | None:
        """Check this process's shard, and return the rows of each process if they are known without communication."""
        if piece.dim() <= self.dim:
            raise SizeError(f"`x` is spread along axis {self.dim}, but its piece has the shape {tuple(piece.shape)}")
        if not piece.is_floating_point():
            raise SizeError(f"`x` must be of a floating dtype, not {piece.dtype}")
        counts, own, rank = self.counts, piece.shape[self.dim], self.mesh.get_local_rank()
        if isinstance(x, DTensor):
            if x.device_mesh != self.mesh or tuple(x.placements) != (Shard(self.dim),):
                raise ShardingError(
                    f"the DTensor must lie on the layer's mesh with placement Shard({self.dim}), not {x.placements}"
                )
            # A DTensor knows its global shape, and DTensor shards it like `torch.chunk`.
            counts = even_counts(x.shape[self.dim], self.mesh.size())
        if counts is not None and len(counts) != self.mesh.size():
            raise SizeError(f"`counts` has {len(counts)} numbers for {self.mesh.size()} processes")
        if counts is not None and counts[rank] != own:
            raise SizeError(
                f"process {rank} has {own} rows along axis {self.dim}, but `counts` = {counts} says {counts[rank]}"
            )
        return counts

    def extra_repr(self) -> str:
        return f"dim={self.dim}, mesh={self.mesh.size()} devices, counts={self.counts}"
