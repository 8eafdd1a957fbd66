"""`scale`: what training a network takes of each device, before anyone rents the devices.

The network runs on fake tensors, which have shapes and no memory, so that what autograd keeps and what is multiplied is
counted, not estimated. Seconds are a roofline's: arithmetic at the device's rate, then traffic to and from its memory,
then what crosses between devices, none of it overlapped. They are bounds to compare by, not promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from polyattn.errors import ShardingError, SizeError
from polyattn.lowering import calibrated
from polyattn.nn.attention import Attention
from polyattn.nn.block import Block
from polyattn.parallel.communication import Communication, communication
from polyattn.parallel.kept import Kept
from polyattn.planning import Device, Link
from polyattn.runtime.counting import flop_counter

TRAFFIC = 4
"""How often a kept activation crosses to or from memory in a step: written, read forward, and both for its gradient."""


@dataclass(frozen=True)
class Layer:
    """An attention of the network, cut by positions over the devices.

    Attributes:
        name: in the network.
        kind: its class.
        shape: of the map that comes to it, (B, C, *spatial), for the batch of all devices.
        communication: what it exchanges; None where it cannot be cut.
        refusal: why not.
        seconds: of its reductions in one step.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    communication: Communication | None
    refusal: str
    seconds: float


@dataclass(frozen=True)
class Scale:
    """What a training step takes of each device, with the batch spread over the devices (data parallel).

    Attributes:
        devices: how many.
        batch: samples on each device.
        macs: multiply-accumulates of one forward pass on a device, as `torch.utils.flop_counter` counts them.
        parameters, gradients, optimizer: bytes on a device; with DDP each device has all of them.
        activations: bytes that autograd keeps on a device.
        exchanged: bytes of gradients that are reduced over the devices in one step.
        computing, exchanging: seconds of one step.
        layers: the attentions, cut by positions instead, on maps of the same batch on all devices together.
    """

    devices: int
    batch: int
    macs: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    exchanged: int
    computing: float
    exchanging: float
    layers: tuple[Layer, ...]

    @property
    def memory(self) -> int:
        """Bytes on each device."""
        return self.parameters + self.gradients + self.optimizer + self.activations

    @property
    def sharded_memory(self) -> int:
        """Bytes on each device where parameters, gradients and the optimizer's state are spread too (FSDP2)."""
        states = self.parameters + self.gradients + self.optimizer
        return -(-states // self.devices) + self.activations

    @property
    def seconds(self) -> float:
        """Of one step."""
        return self.computing + self.exchanging

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        whole = {"memory": self.memory, "sharded_memory": self.sharded_memory, "seconds": self.seconds}
        return asdict(self) | whole


def scale(
    model: nn.Module,
    shape: Sequence[int],
    devices: int,
    *,
    link: Link | None = None,
    device: str | Device = "cuda",
    states: int = 1,
) -> Scale:
    """What training a network on several devices takes of each.

    Args:
        model: the network, in training mode or not; it is counted in training mode.
        shape: of the input on one device, with its batch.
        devices: how many.
        link: what connects them.
        device: their kind, "cpu" or "cuda" as calibrated here or shipped, or a `Device`.
        states: numbers that the optimizer keeps for each parameter: 1 for SGD with momentum, 2 for Adam.

    Raises:
        SizeError: a number is not positive, or the shape is no input's.
    """
    if devices < 1 or len(shape) < 3 or min(shape) < 1:
        raise SizeError(f"a number of devices and the shape of an input are needed, not {devices} and {tuple(shape)}")
    link, rates = link or Link(), calibrated(device) if isinstance(device, str) else device
    kind = device if isinstance(device, str) else "cpu"
    kept, macs, maps = _counted(model, shape)
    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in weights)
    held = [*model.parameters(), *model.buffers()]
    return Scale(
        devices=devices,
        batch=shape[0],
        macs=macs,
        parameters=sum(t.numel() * t.element_size() for t in held),
        gradients=gradients,
        optimizer=states * gradients,
        activations=kept,
        exchanged=gradients if devices > 1 else 0,
        computing=3 * macs / rates.macs_per_second + TRAFFIC * kept / rates.bytes_per_second,
        exchanging=link.seconds(gradients, devices) if devices > 1 else 0.0,
        layers=tuple(_layer(n, m, (s[0] * devices, *s[1:]), devices, link, kind) for n, (m, s) in maps.items()),
    )


def _counted(model: nn.Module, shape: Sequence[int]) -> tuple[int, int, dict[str, tuple[nn.Module, tuple[int, ...]]]]:
    """Bytes kept for the backward pass, multiply-accumulates, and the attentions with the shapes that come to them."""
    maps: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}

    def seen(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            maps[name] = module, tuple(arguments[0].shape)

        return hook

    handles = [m.register_forward_pre_hook(seen(n)) for n, m in _attentions(model).items()]
    training = {m: m.training for m in model.modules()}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    state = {n: mode.from_tensor(t).requires_grad_(t.requires_grad) for n, t in model.named_parameters()}
    state |= {n: mode.from_tensor(t) for n, t in model.named_buffers()}
    counter = flop_counter()
    try:
        model.train()
        kept = Kept(state.values())
        with mode, counter, kept, torch.enable_grad():
            functional_call(model, state, (torch.empty(tuple(shape), dtype=dtype),))
    finally:
        for module, mine in training.items():
            module.training = mine
        for handle in handles:
            handle.remove()
    return kept.bytes, counter.get_total_flops() // 2, maps


def _attentions(model: nn.Module) -> dict[str, nn.Module]:
    """Attention by name, without attention inside attention."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, Attention | Block)}
    return {n: m for n, m in found.items() if not any(n.startswith(f"{other}.") for other in found)}


def _layer(name: str, module: nn.Module, shape: tuple[int, ...], devices: int, link: Link, device: str) -> Layer:
    kind = type(module).__name__
    try:
        found = communication(module, shape, devices, link=link, device=device)
    except ShardingError as error:
        return Layer(name, kind, shape, None, str(error), 0.0)
    return Layer(name, kind, shape, found, "", found.seconds(link))
