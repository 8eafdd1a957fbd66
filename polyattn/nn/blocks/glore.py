"""`GloRe`: the global reasoning unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.nn.block import BATCH_NORMS, Block, inner_width, matrix, pointwise, settling, whole
from polyattn.nn.factory import as_factory
from polyattn.nn.parts import part
from polyattn.nn.plain import is_plain
from polyattn.runtime.function import SpecFunction
from polyattn.runtime.layouts import channels_first, positions_first

PROJECTED = "projection[N,R]; state[R,V]; y[a,t] = projection[a,k]*state[k,t]"
"""The way back from the nodes, for modules that have to be called."""


class GloRe(Block):
    """GloRe: `Z = X + BN(Bᵀ relu((I - A) B X') Wg Wo)`, reasoning among a few nodes.

    Source: Chen et al., Graph-Based Global Reasoning Networks, 2019, section 3; biases, ReLU and batch norm as in the
    authors' code, where `gcn.conv1` is -A with a bias and `gcn.conv2` is Wg.

    Prefer it for a few nodes with a learned graph between them; its cost is linear in the positions.

    Args:
        channels: channels of the input and the output.
        reduction: channels / channels of a node's state.
        nodes: number of nodes; by default half the channels of a node's state.
        mean: whether nodes are means over the positions instead of sums. Sums suit small maps of one size; sums over
            large maps overflow 16 bits.
        dim: the number of spatial axes.
        zero_init: whether the batch norm's scale starts at 0, which makes the block the identity.
        memory_limit: the most bytes that each planned part may allocate, and its backward pass, in float32; see
            `polyattn.plan`. Convolutions, norms and softmaxes around the parts are not counted.
        generator: random generator of the initial values.
        device, dtype: of the parameters and buffers, as in torch's modules.

    Shape:
        (B, channels, *spatial) to the same; contiguous or channels-last.

    Raises:
        SizeError: a wrong number; at call time, an input of another shape or dtype.

    >>> GloRe(8)(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 8, 5, 7])
    """

    @as_factory
    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        nodes: int | None = None,
        *,
        mean: bool = True,
        dim: int = 2,
        zero_init: bool = True,
        objective: str = "training",
        memory_limit: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(channels, dim)
        state = inner_width(channels, reduction)
        nodes = max(1, state // 2) if nodes is None else whole("nodes", nodes)
        self.conv_state = pointwise(dim, channels, state, bias=True)
        self.conv_proj = pointwise(dim, channels, nodes, bias=True)
        conv1, conv2 = nn.Conv1d(nodes, nodes, 1), nn.Conv1d(state, state, 1, bias=False)
        self.gcn = nn.ModuleDict({"conv1": conv1, "conv2": conv2})
        self.conv_extend = pointwise(dim, state, channels)
        self.blocker = BATCH_NORMS[dim](channels, eps=1e-4)
        if zero_init:
            nn.init.zeros_(self.blocker.weight)
        self.spec = catalog.glore(mean=mean, relu=True)
        self._nodes = SpecFunction(
            part(self.spec, "nodes", "projection", "reduced"), None, objective, memory_limit=memory_limit
        )
        self._projected = SpecFunction(Spec(PROJECTED), None, objective, memory_limit=memory_limit)
        self._back = SpecFunction(
            part(self.spec, "y", "projection", "diffused"), {"C": channels}, objective, memory_limit=memory_limit
        )

    def spec_parameters(self) -> dict[str, Tensor]:
        return {
            "wtheta": matrix(self.conv_proj),
            "wphi": matrix(self.conv_state),
            # The authors' convolution adds its output to the nodes; Eq. (I - A) subtracts the adjacency.
            "adj": -matrix(self.gcn["conv1"]).transpose(0, 1),
            **self._reasoning(),
        }

    def _reasoning(self) -> dict[str, Tensor]:
        return {"wg": matrix(self.gcn["conv2"]), "wo": matrix(self.conv_extend)}

    @settling
    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, *spatial) to the same shape."""
        self.check(x)
        projection, reduced = (positions_first(layer(x), 1) for layer in (self.conv_proj, self.conv_state))
        nodes = self._nodes({"projection": projection, "reduced": reduced})
        # A convolution over nodes as channels: it mixes nodes, with its bias, for every state at once.
        diffused = torch.relu(nodes + self.gcn["conv1"](nodes))
        if is_plain(self.gcn["conv2"], self.conv_extend):
            y = self._back({"projection": projection, "diffused": diffused, **self._reasoning()})
            y = channels_first(y, x, 1)
        else:
            # The second convolution has the states as its channels.
            state = self.gcn["conv2"](diffused.transpose(1, 2)).transpose(1, 2)
            y = self.conv_extend(channels_first(self._projected({"projection": projection, "state": state}), x, 1))
        return x + self.blocker(y).to(x.dtype)
