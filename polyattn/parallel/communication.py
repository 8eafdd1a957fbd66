"""`communication`: the traffic of a layer with sharded positions, counted before anything is sent.

The layer's form for shards runs on meta tensors, with an exchange that counts the values of each collective instead of
sending them.
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
    """The communication of one layer in one call.

    Attributes:
        layer: name of the layer in the module; empty for the module itself.
        forward, backward: bytes of reduced values, per device.
        forward_reductions, backward_reductions: number of all-reduces.
        forward_dealt, backward_dealt: bytes of maps exchanged by all-to-alls, over all devices.
        forward_deals, backward_deals: number of all-to-alls.
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
        """Add one all-reduce, and that of its gradient."""
        return replace(
            self,
            forward=self.forward + payload,
            backward=self.backward + payload * backward,
            forward_reductions=self.forward_reductions + 1,
            backward_reductions=self.backward_reductions + backward,
        )

    def dealt(self, payload: int, backward: bool) -> Traffic:
        """Add one all-to-all of a map, and that of its gradient."""
        return replace(
            self,
            forward_dealt=self.forward_dealt + payload,
            backward_dealt=self.backward_dealt + payload * backward,
            forward_deals=self.forward_deals + 1,
            backward_deals=self.backward_deals + backward,
        )


@dataclass(frozen=True)
class Communication:
    """The communication of one call.

    Attributes:
        layers: traffic by layer, without the gradients of parameters.
        parameters: bytes of the gradients of parameters, all-reduced once at the end of the backward pass.
        devices: number of shards.
        kept: bytes kept by autograd on the device with the longest shard.
        map_bytes: bytes of the whole map. Gathering it would send the other devices' share of it to each device.
    """

    layers: tuple[Traffic, ...]
    parameters: int
    devices: int
    kept: int
    map_bytes: int

    @property
    def forward(self) -> int:
        """Sum the bytes reduced over the devices in the forward pass."""
        return sum(t.forward for t in self.layers)

    @property
    def backward(self) -> int:
        """Sum the bytes reduced over the devices in the backward pass, with the gradients of parameters."""
        return sum(t.backward for t in self.layers) + self.parameters

    @property
    def dealt(self) -> tuple[int, int]:
        """Sum the bytes of maps in all-to-alls, forward and backward, over all devices."""
        return sum(t.forward_dealt for t in self.layers), sum(t.backward_dealt for t in self.layers)

    @property
    def sent(self) -> float:
        """Return the average number of bytes sent by a device in both passes.

        A ring all-reduce sends 2 (P - 1) / P of the reduced bytes; an all-to-all sends the shard without the device's
        own share.
        """
        others = (self.devices - 1) / self.devices
        return others * (2 * (self.forward + self.backward) + sum(self.dealt) / self.devices)

    @property
    def gathering(self) -> float:
        """Return the bytes sent by each device if the map were gathered instead, forward only."""
        return (self.devices - 1) / self.devices * self.map_bytes

    def seconds(self, link: Link) -> float:
        """Return the time of all collectives in sequence, in seconds, with all-reduces on a ring."""
        # Gradients of parameters travel together: one more message.
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
    """Count the communication of a layer in one call on sharded maps of a shape, without sending or computing.

    Args:
        module: a layer, as for `shard_positions`.
        shape: shape of the whole map, (B, C, *spatial).
        devices: number of shards, as even as possible.
        dim: the sharded axis.
        link: the link between devices, for the choice of the order of contraction.
        device: type of the devices, for the same choice.
        training: whether a backward pass follows.
        input_gradient: whether the input requires a gradient.
        reduce_gradients: whether the gradients of parameters are all-reduced.

    Raises:
        ShardingError: the layer cannot be sharded.
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
    # Shard 0 is the longest, so its memory bounds that of every device.
    piece = [*shape[:dim], counts[0], *shape[dim + 1 :]]
    # Meta tensors have shapes and autograd graphs but no memory: nothing is computed or sent.
    x = torch.empty(piece, dtype=dtype, device="meta", requires_grad=training and input_gradient)
    kept = Kept(state.values())
    with torch.set_grad_enabled(training), kept:
        functional_call(twin, state, (x,))
    wanted = [p for p in named.values() if p.requires_grad] if training and reduce_gradients else []
    gradients = sum(p.numel() * p.element_size() for p in wanted)
    whole = prod(shape) * torch.empty(0, dtype=dtype).element_size()
    return Communication(tuple(exchange.layers.values()), gradients, devices, kept.bytes, whole)


def _whole_groups(module: nn.Module, channels: int, devices: int) -> tuple[int, ...]:
    """Return the channels of each device, in whole groups of channels."""
    width = 1
    if isinstance(module, Attention):
        # A grouped channel size is groups times width; shards are whole groups.
        groups, *_ = module.spec.sizes.atoms(module.channel_size)
        if groups != module.channel_size:
            width = channels // module.spec.sizes.solve(module.sizes)[groups]
    return tuple(width * n for n in even_counts(channels // width, devices))


def even_counts(length: int, pieces: int) -> tuple[int, ...]:
    """Split a length like `torch.chunk` and DTensor: the last shards may be shorter, or empty.

    >>> even_counts(7, 4)
    (2, 2, 2, 1)
    """
    each = -(-length // pieces)
    return tuple(min(each, max(0, length - piece * each)) for piece in range(pieces))


class _Counter(Pieces):
    """An exchange that counts the values of each collective, by layer."""

    deals = True

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        self.layers: dict[str, Traffic] = {}
        self.where: list[str] = []

    def sum(self, value: Tensor) -> Tensor:
        self._count(value, torch.is_grad_enabled() and value.requires_grad)
        return value

    def maximum(self, value: Tensor) -> Tensor:
        # A maximum has no gradient, hence no collective in the backward pass.
        self._count(value, False)
        return value.detach()

    def to_channels(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return self._deal(x, (1, channels), (self.axis, self.counts))

    def to_rows(self, x: Tensor, channels: tuple[int, ...]) -> Tensor:
        return self._deal(x, (self.axis, self.counts), (1, channels))

    def _deal(self, x: Tensor, cut: tuple[int, tuple[int, ...]], joined: tuple[int, tuple[int, ...]]) -> Tensor:
        (axis, parts), (along, lengths) = cut, joined
        # Shards differ in length; the whole map's bytes follow from this shard's length and the total.
        whole = x.numel() // lengths[self.rank] * sum(lengths) * x.element_size()
        self.layers[self._name] = self._of(self._name).dealt(whole, torch.is_grad_enabled() and x.requires_grad)
        share = x.narrow(axis, 0, parts[self.rank])
        # Only the shape matters on meta tensors: repeated shares, cropped to the whole length, keep the autograd graph.
        return torch.cat([share] * -(-sum(lengths) // share.shape[along]), along).narrow(along, 0, sum(lengths))

    @property
    def _name(self) -> str:
        # Nested layers count for the outermost one.
        return self.where[0] if self.where else ""

    def _of(self, name: str) -> Traffic:
        return self.layers.get(name, Traffic(name))

    def _count(self, value: Tensor, backward: bool) -> None:
        payload = value.numel() * value.element_size()
        self.layers[self._name] = self._of(self._name).plus(payload, backward)


def _named_layers(twin: nn.Module, exchange: _Counter) -> None:
    """Register hooks that tell the counter the running layer."""

    def enter(name: str) -> Any:
        return lambda *_: exchange.where.append(name)

    def leave(*_: Any) -> None:
        exchange.where.pop()

    for name, module in twin.named_modules():
        # Norms and dropout outside blocks communicate through an exchange of their own.
        if isinstance(module, Attention | Block) or "exchange" in module.__dict__:
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave)


def _meta(tensor: Tensor, gradient: bool) -> Tensor:
    return torch.empty_like(tensor, device="meta").requires_grad_(gradient)
