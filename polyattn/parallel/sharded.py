"""`shard_positions`: a layer whose feature map is spread over devices by its positions."""

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
    """A layer that computes on maps whose positions are spread over a device mesh.

    Each process passes its own rows along `dim` and gets their rows of the result; pieces may differ in length, and be
    empty. The layer's plan says which steps sum over positions, and exactly there the devices' sums are added up, so
    what crosses does not grow with the map: C numbers a sample for Poly-NL, R x S for E-NL. The order of contraction is
    chosen with what it exchanges. The bilinear transform of a `BATransform` or `BATBlock` mixes rows with rows: with
    `downsample` the averages of its blocks cross, otherwise the map is dealt out anew, by channels, and back.

    Args:
        module: an `Attention`, a block of `polyattn.nn` without similarities of positions, or an `nn.Sequential` of
            such, of 1x1 convolutions, norms, activations and dropout of channels. Its parameters are shared, not
            copied, and are the same on all devices.
        mesh: with one axis (of a larger mesh, `mesh["name"]`).
        dim: the axis of (B, C, *spatial) that is spread. With 1 it is the channels, in whole groups where there are
            groups; only for an `Attention` whose products stay within channels, such as `catalog.ba_transform`, is less
            exchanged than a map.
        counts: how many rows each process has, if that is known; a compiled layer needs them. Settable later as the
            attribute `counts`. Not needed for a `DTensor`.
        link: what connects the devices, for the choice of the order of contraction.
        reduce_gradients: whether gradients of parameters are added up over the mesh. Without it each device has a
            summand of them, to be added up by a data-parallel wrapper over a larger mesh (DDP, FSDP2), which then has
            to sum, not to average, over this axis.

    Returns:
        A module that takes and returns local tensors, or `DTensor`s with `Shard(dim)`.

    Raises:
        ShardingError: the layer needs positions of several devices at once; says which layer and why. For an
            `Attention`, whose plan depends on the sizes, at the first call.
    """
    return ShardedPositions(module, mesh, dim, counts, link or Link(), reduce_gradients)


class ShardedPositions(nn.Module):
    """What `shard_positions` returns.

    Attributes:
        module: the layer as it was.
        counts: how many rows each process has, or None where that is agreed on at each call.
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
        piecewise(module, Collectives(mesh, dim), link)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to this process's rows (B, C, *spatial), or to a map as a `DTensor`.

        Raises:
            ShardingError: the processes' pieces, modes or `counts` do not fit together; on all of them, before
                anything else is sent.
            SizeError: the piece is not a floating-point map, or not of the rows that `counts` says.
        """
        piece = x.to_local() if isinstance(x, DTensor) else x
        counts = self._agreed(x, piece)
        rest = self._rest(piece)
        if not sum(counts) or not rest:
            raise SizeError(f"the map has no positions: a piece has the shape {tuple(piece.shape)}")
        self._last = (*piece.shape[: self.dim], sum(counts), *piece.shape[self.dim + 1 :])
        twin = piecewise(self.module, Collectives(self.mesh, self.dim, counts, rest), self.link)
        y = functional_call(twin, {**self._parameters_here(), **dict(self.module.named_buffers())}, (piece,))
        if isinstance(x, DTensor):
            return DTensor.from_local(y, x.device_mesh, x.placements, run_check=False, shape=x.shape, stride=x.stride())
        return y

    def _agreed(self, x: Tensor, piece: Tensor) -> tuple[int, ...]:
        """The rows of each process. A compiler, which cannot branch on what others send, takes the counts as given."""
        if self.counts is not None and torch.compiler.is_compiling():
            return self._checked(x, piece) or self.counts
        counts, fault = self.counts, None
        try:
            counts = self._checked(x, piece)
        except PolyattnError as error:
            fault = error
        return agreed(piece, self.module, counts, self.dim, self.mesh, fault)

    def communication(self, shape: Sequence[int] | None = None) -> Communication:
        """What one call exchanges on maps of a shape, layer by layer, forward and backward, counted without sending.

        Args:
            shape: of the whole map, (B, C, *spatial); by default that of the last call.
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
        return dict(zip(named, Replicate.apply(self.mesh, *named.values()), strict=True))

    def _rest(self, x: Tensor) -> int:
        """Positions of one row."""
        return prod([n for axis, n in enumerate(x.shape[2:], 2) if axis != self.dim])

    def _checked(self, x: Tensor, piece: Tensor) -> tuple[int, ...] | None:
        """The rows of each process where they are known here, after a check of this process's own piece."""
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
