"""`LatentGNN`: the latent graph neural network block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.errors import SizeError
from polyattn.nn.block import BATCH_NORMS, Block, inner_width, matrix, one_of, pointwise, settling, whole
from polyattn.nn.factory import as_factory
from polyattn.nn.parts import part
from polyattn.nn.plain import is_plain, precision
from polyattn.runtime.communicator import WHOLE, Exchange
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first, positions_first


class LatentGNN(Block):
    """Latent-GNN: `Z = X + gamma BN(W [Ψ_1 A_1 Φ_1ᵀ V, Ψ_2 A_2 Φ_2ᵀ V, ...])`, through a few latent nodes.

    Source: Zhang et al., LatentGNN: Learning Efficient Non-local Relations for Visual Recognition, 2019, section 3;
    functions as in version 1 of the authors' code: V is X in fewer channels, with batch norm and each position divided
    by its norm; Φ and Ψ are 1x1 convolutions of it with batch norm and ReLU, divided by their norms; the affinity A is
    the softmax of the nodes' cosines.

    Prefer it where a few latent nodes suffice: its cost is linear in the positions, without similarities of positions.

    Args:
        channels: channels of the input and the output.
        latent_dims: the number of nodes of each kernel.
        reduction: channels / inner channels.
        mode: "asymmetric", with separate projections from positions to nodes and back, or "symmetric", with one
            projection for both. Asymmetric Φ is divided by its norm over positions, all others by their norm over
            nodes.
        dim: the number of spatial axes.
        graph_conv: whether each kernel's output passes a 1x1 convolution with batch norm and ReLU.
        residual: whether to add X. `gamma`, initially 0, is then the factor of the rest.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> block = LatentGNN(8, latent_dims=[5, 3])
    >>> block(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    down_channel: nn.Sequential
    down_channel_v2l: nn.Sequential
    down_channel_l2v: nn.Sequential

    @as_factory
    def __init__(
        self,
        channels: int,
        latent_dims: Sequence[int] = (100,),
        reduction: int = 4,
        *,
        mode: str = "asymmetric",
        dim: int = 2,
        graph_conv: bool = False,
        residual: bool = True,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        inner = inner_width(channels, reduction)
        self.latent_dims, self.residual = _latent_dims(latent_dims), residual
        self.mode = one_of("mode", mode, ("asymmetric", "symmetric"))
        self.spec = catalog.latent_gnn(mean=False)
        for name in ("down_channel_v2l", "down_channel_l2v") if mode == "asymmetric" else ("down_channel",):
            self.add_module(name, _projection(dim, channels, inner))
        self.kernels = nn.ModuleList(
            _Kernel(dim, inner, nodes, mode, graph_conv, objective, memory_limit) for nodes in self.latent_dims
        )
        self.up_channel = _projection(dim, inner * len(self.latent_dims), channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        if self.mode == "asymmetric":
            value, back = WHOLE.unit(self.down_channel_v2l(x), 1), WHOLE.unit(self.down_channel_l2v(x), 1)
        else:
            value = back = WHOLE.unit(self.down_channel(x), 1)
        y = torch.cat([kernel(value, back) for kernel in self.kernels], 1)
        summed = self.mode == "symmetric" and self.kernels[0].GraphConvWeight is None
        y = _applied(self.up_channel, y, self.positions if summed else None)
        return (x + y * self.gamma).to(x.dtype) if self.residual else y


class _Kernel(nn.Module):
    """One set of latent nodes: from positions to nodes, along the affinity, and back."""

    psi: nn.Sequential
    psi_v2l: nn.Sequential
    psi_l2v: nn.Sequential
    positions: Exchange = WHOLE

    def __init__(
        self, dim: int, channels: int, nodes: int, mode: str, graph_conv: bool, objective: str, memory_limit: int | None
    ):
        super().__init__()
        self.mode = mode
        for name in ("psi_v2l", "psi_l2v") if mode == "asymmetric" else ("psi",):
            self.add_module(name, _projection(dim, channels, nodes, nn.ReLU()))
        self.GraphConvWeight = _projection(dim, channels, channels, nn.ReLU()) if graph_conv else None
        if self.GraphConvWeight is not None:
            nn.init.normal_(matrix(self.GraphConvWeight[0]), std=0.01)
        # Symmetric nodes are sums over all positions and may overflow 16 bits: means here, `_summed` later.
        spec = catalog.latent_gnn(mean=mode == "symmetric")
        self._nodes = SpecFunction(part(spec, "nodes", "phi", "value"), None, objective, memory_limit=memory_limit)
        self._visible = SpecFunction(part(spec, "y", "psi", "adj", "nodes"), None, objective, memory_limit=memory_limit)

    def forward(self, value: Tensor, back: Tensor) -> Tensor:
        """Map `value` and `back`, both (B, inner, *spatial), to the same shape."""
        if self.mode == "asymmetric":
            phi = self.positions.unit(self.psi_v2l(value).flatten(2), 2)
            psi = WHOLE.unit(self.psi_l2v(back).flatten(2), 1)
        else:
            phi = psi = WHOLE.unit(self.psi(value).flatten(2), 1)
        nodes = self._nodes({"phi": phi.transpose(1, 2), "value": positions_first(value, 1)})
        # The reduction over positions leaves the nodes whole on every shard, so their affinity is local.
        cosines = WHOLE.unit(nodes, 2)
        affinity = torch.softmax(cosines @ cosines.transpose(1, 2), 2)
        y = self._visible({"psi": psi.transpose(1, 2), "adj": affinity, "nodes": nodes})
        y = channels_first(y, value, 1)
        if self.GraphConvWeight is None:
            return y
        return _applied(self.GraphConvWeight, y, self.positions if self.mode == "symmetric" else None)


def _applied(layers: nn.Sequential, y: Tensor, positions: Exchange | None) -> Tensor:
    """Apply a projection to y; to N times y if given the positions."""
    if positions is None:
        return layers(y)
    factor = positions.count(y)
    if len(layers) < 2 or not is_plain(layers, layers[0]) or layers[0].bias is not None:
        return layers(y * factor)
    convolution, norm, *then = layers
    y = convolution(y)
    # The convolution is linear and has no bias, so the factor may follow it, in the precision of the norm.
    y = norm(y.to(precision(norm, y)) * factor)
    for layer in then:
        y = layer(y)
    return y


def _projection(dim: int, inner: int, outer: int, *then: nn.Module) -> nn.Sequential:
    """Build a 1x1 convolution without bias, batch norm, and the modules `then`."""
    return nn.Sequential(pointwise(dim, inner, outer), BATCH_NORMS[dim](outer), *then)


def _latent_dims(latent_dims: Sequence[int]) -> tuple[int, ...]:
    if isinstance(latent_dims, str) or not isinstance(latent_dims, Sequence) or not latent_dims:
        raise SizeError(
            f"LatentGNN: latent_dims must be the number of nodes of each kernel, such as [100], not {latent_dims!r}"
        )
    return tuple(whole("latent_dims", nodes) for nodes in latent_dims)
