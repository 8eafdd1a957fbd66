"""`communication`: what a layer whose positions are spread over devices exchanges, counted before anything is sent.

The layer's form for pieces runs on meta tensors, and an exchange that sends nothing counts what it is asked to reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from polyattn.errors import SizeError
from polyattn.nn.attention import Attention
from polyattn.nn.block import Block
from polyattn.nn.shard_module import piecewise
from polyattn.parallel.kept import Kept
from polyattn.planning import Link
from polyattn.runtime.communicator import Pieces


@dataclass(frozen=True)
class Traffic:
    """What one layer exchanges in one call.

    Attributes:
        layer: its name in the module; empty for the module itself.
        forward, backward: bytes of the values that are reduced, those of one device.
        forward_reductions, backward_reductions: in so many all-reduces.
        forward_dealt, backward_dealt: bytes of maps that are dealt out anew by all-to-alls, those of all devices.
        forward_deals, backward_deals: in so many.
    """

    layer: str
    forward: int = 0
    backward: int = 0
    forward_reductions: int = 0
    backward_reductions: int = 0
    forward_dealt: int = 0
    backward_dealt: int = 0
    forward_deals: int = 0
    backward_deals: int = 0

    def plus(self, payload: int, backward: bool) -> Traffic:
        """One reduction more, and its gradient's."""
        return replace(
            self,
            forward=self.forward + payload,
            backward=self.backward + payload * backward,
            forward_reductions=self.forward_reductions + 1,
            backward_reductions=self.backward_reductions + backward,
        )

    def dealt(self, payload: int, backward: bool) -> Traffic:
        """A map dealt out once more, and its gradient."""
        return replace(
            self,
            forward_dealt=self.forward_dealt + payload,
            backward_dealt=self.backward_dealt + payload * backward,
            forward_deals=self.forward_deals + 1,
            backward_deals=self.backward_deals + backward,
        )


@dataclass(frozen=True)
class Communication:
    """What one call exchanges.

    Attributes:
        layers: by layer, without the gradients of parameters.
        parameters: bytes of the gradients of parameters, which are reduced once at the end of the backward pass.
        devices: so many pieces.
        kept: bytes that autograd keeps on the device with the longest piece.
        map_bytes: of the whole map. Gathering it would send the other devices' share of that to each.
    """

    layers: tuple[Traffic, ...]
    parameters: int
    devices: int
    kept: int
    map_bytes: int

    @property
    def forward(self) -> int:
        """Bytes that are reduced over the devices in the forward pass."""
        return sum(t.forward for t in self.layers)

    @property
    def backward(self) -> int:
        """Bytes that are reduced over the devices in the backward pass, gradients of parameters included."""
        return sum(t.backward for t in self.layers) + self.parameters

    @property
    def dealt(self) -> tuple[int, int]:
        """Bytes of maps that are dealt out anew in the forward and the backward pass, those of all devices."""
        return sum(t.forward_dealt for t in self.layers), sum(t.backward_dealt for t in self.layers)

    @property
    def sent(self) -> float:
        """Bytes that each device sends in both passes, on the average: by all-reduces on a ring 2 (P - 1) / P of what
        is reduced, and of a map that is dealt out anew all but its own share of its own piece."""
        others = (self.devices - 1) / self.devices
        return others * (2 * (self.forward + self.backward) + sum(self.dealt) / self.devices)

    @property
    def gathering(self) -> float:
        """Bytes that each device would send if the map were gathered instead, forward only."""
        return (self.devices - 1) / self.devices * self.map_bytes

    def seconds(self, link: Link) -> float:
        """The time of everything, one after the other; reductions on a ring."""
        messages = sum(t.forward_reductions + t.backward_reductions for t in self.layers) + bool(self.parameters)
        deals = sum(t.forward_deals + t.backward_deals for t in self.layers)
        reducing = link.seconds(self.forward + self.backward, self.devices, messages)
        return reducing + link.dealing(sum(self.dealt), self.devices, deals)

    def __str__(self) -> str:
        rows = [
            f"{t.layer or '(the layer)'}: {t.forward:,} bytes forward, {t.backward:,} backward" for t in self.layers
        ]
        forward, backward = self.dealt
        dealt = [f"dealt out anew: maps of {forward:,} bytes forward, {backward:,} backward"] if forward else []
        return "\n".join(
            (
                *rows,
                f"gradients of parameters: {self.parameters:,} bytes",
                f"reduced over {self.devices} devices: {self.forward:,} bytes forward, {self.backward:,} backward",
                *dealt,
                f"each device sends {self.sent:,.0f} bytes; gathering the map would send {self.gathering:,.0f}",
            )
        )


def communication(
    module: nn.Module,
    shape: Sequence[int],
    devices: int,
    *,
    dim: int = 2,
    link: Link | None = None,
    device: str = "cpu",
    training: bool = True,
    input_gradient: bool = True,
    reduce_gradients: bool = True,
) -> Communication:
    """What a layer exchanges in one call on maps of a shape that are spread over devices; nothing is sent or computed.

    Args:
        module: as for `shard_positions`.
        shape: of the whole map, (B, C, *spatial).
        devices: so many pieces, as even as can be.
        dim: the axis that is spread.
        link: what connects the devices, for the choice of the order of contraction.
        device: the type of the devices, for the same.
        training: whether a backward pass follows.
        input_gradient: whether the input's gradient is wanted.
        reduce_gradients: whether the gradients of parameters are added up.

    Raises:
        ShardingError: the layer cannot be cut.
    """
    if len(shape) <= dim or dim < 1 or not all(shape[1:]):
        raise SizeError(f"the shape of the whole map must be (B, C, *spatial) with an axis {dim}, not {tuple(shape)}")
    counts = even_counts(shape[dim], devices) if dim > 1 else _whole_groups(module, shape[dim], devices)
    rest = prod(n for axis, n in enumerate(shape[2:], 2) if axis != dim)
    exchange = _Counter(dim, counts, rest, counting=False, device=device)
    twin = piecewise(module, exchange, link)
    _named_layers(twin, exchange)
    named = dict(module.named_parameters())
    state = {name: _meta(p, training and p.requires_grad) for name, p in named.items()}
    state |= {name: _meta(b, False) for name, b in module.named_buffers()}
    dtype = next((p.dtype for p in named.values() if p.is_floating_point()), torch.float32)
    piece = [*shape[:dim], counts[0], *shape[dim + 1 :]]
    x = torch.empty(piece, dtype=dtype, device="meta", requires_grad=training and input_gradient)
    kept = Kept(state.values())
    with torch.set_grad_enabled(training), kept:
        functional_call(twin, state, (x,))
    wanted = [p for p in named.values() if p.requires_grad] if training and reduce_gradients else []
    gradients = sum(p.numel() * p.element_size() for p in wanted)
    whole = prod(shape) * torch.empty(0, dtype=dtype).element_size()
    return Communication(tuple(exchange.layers.values()), gradients, devices, kept.bytes, whole)


def _whole_groups(module: nn.Module, channels: int, devices: int) -> tuple[int, ...]:
    """Channels of each device where groups of channels stay together."""
    width = 1
    if isinstance(module, Attention):
        groups, *_ = module.spec.sizes.atoms(module.channel_size)
        if groups != module.channel_size:
            width = channels // module.spec.sizes.solve(module.sizes)[groups]
    return tuple(width * n for n in even_counts(channels // width, devices))


def even_counts(length: int, pieces: int) -> tuple[int, ...]:
    """How many rows each piece has, as `torch.chunk` and DTensor cut them: the last ones may be shorter, or empty.

    >>> even_counts(7, 4)
    (2, 2, 2, 1)
    """
    each = -(-length // pieces)
    return tuple(min(each, max(0, length - piece * each)) for piece in range(pieces))


class _Counter(Pieces):
    """Counts the values that a call exchanges, by layer."""

    deals = True

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        self.layers: dict[str, Traffic] = {}
        self.where: list[str] = []

    def sum(self, value: Tensor) -> Tensor:
        self._count(value, torch.is_grad_enabled() and value.requires_grad)
        return value

    def maximum(self, value: Tensor) -> Tensor:
        self._count(value, False)
        return value.detach()

    def to_channels(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return self._deal(x, (1, channels), (self.axis, self.counts))

    def to_rows(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return self._deal(x, (self.axis, self.counts), (1, channels))

    def _deal(self, x: Tensor, cut: tuple[int, tuple[int, ...]], joined: tuple[int, tuple[int, ...]]) -> Tensor:
        (axis, parts), (along, lengths) = cut, joined
        whole = x.numel() // lengths[self.rank] * sum(lengths) * x.element_size()
        self.layers[self._name] = self._of(self._name).dealt(whole, torch.is_grad_enabled() and x.requires_grad)
        share = x.narrow(axis, 0, parts[self.rank])
        return torch.cat([share] * -(-sum(lengths) // share.shape[along]), along).narrow(along, 0, sum(lengths))

    @property
    def _name(self) -> str:
        return self.where[0] if self.where else ""

    def _of(self, name: str) -> Traffic:
        return self.layers.get(name, Traffic(name))

    def _count(self, value: Tensor, backward: bool) -> None:
        payload = value.numel() * value.element_size()
        self.layers[self._name] = self._of(self._name).plus(payload, backward)


def _named_layers(twin: nn.Module, exchange: _Counter) -> None:
    """Tell the counter which layer runs."""

    def enter(name: str) -> Any:
        return lambda *_: exchange.where.append(name)

    def leave(*_: Any) -> None:
        exchange.where.pop()

    for name, module in twin.named_modules():
        if isinstance(module, Attention | Block) or "exchange" in module.__dict__:
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave)


def _meta(tensor: Tensor, gradient: bool) -> Tensor:
    return torch.empty_like(tensor, device="meta").requires_grad_(gradient)
