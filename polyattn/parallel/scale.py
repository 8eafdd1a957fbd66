"""`scale`: memory, communication and time of training a network, per device, before renting devices.

The network runs on fake tensors, with shapes but no memory, so the bytes kept by autograd and the multiply-accumulates
are counted, not estimated. Seconds are those of a roofline: arithmetic at the device's rate, then traffic to and from
its memory, then communication, without overlap. They are bounds for comparison, not promises.
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
from polyattn.lowering.devices import DTYPES
from polyattn.nn.attention import Attention
from polyattn.nn.block import Block
from polyattn.parallel.communication import Communication, communication
from polyattn.parallel.kept import Kept
from polyattn.planning import Device, Link
from polyattn.runtime.counting import flop_counter

TRAFFIC = 4
"""Memory transfers of a kept activation per step: written, read forward, and both for its gradient."""


@dataclass(frozen=True)
class Layer:
    """An attention of the network, sharded by positions.

    Attributes:
        name: name in the network.
        kind: name of its class.
        shape: shape of its input map, (B, C, *spatial), for the batch of all devices.
        communication: its communication; None if it cannot be sharded.
        refusal: the reason if it cannot be sharded, else "".
        seconds: time of its collectives in one step, in seconds.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    communication: Communication | None
    refusal: str
    seconds: float


@dataclass(frozen=True)
class Scale:
    """The cost of a training step per device, with the batch sharded over the devices (data parallel).

    Attributes:
        devices: number of devices.
        batch: samples per device.
        macs: multiply-accumulates of one forward pass on a device, as counted by `torch.utils.flop_counter`.
        parameters, gradients, optimizer: bytes on a device; with DDP each device has all of them.
        activations: bytes kept by autograd on a device.
        exchanged: bytes of gradients all-reduced in one step.
        computing, exchanging: seconds of one step.
        layers: the attentions sharded by positions instead, on maps of the same batch on all devices together.
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
        """Sum the bytes on each device."""
        return self.parameters + self.gradients + self.optimizer + self.activations

    @property
    def sharded_memory(self) -> int:
        """Sum the bytes on each device if parameters, gradients and optimizer state are sharded too (FSDP2)."""
        states = self.parameters + self.gradients + self.optimizer
        # Activations stay: FSDP2 shards states, and each device still runs its own samples.
        return -(-states // self.devices) + self.activations

    @property
    def seconds(self) -> float:
        """Return the seconds of one step."""
        return self.computing + self.exchanging

    def as_dict(self) -> dict[str, Any]:
        """Return all values as plain numbers, strings and lists."""
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
    """Estimate the cost per device of training a network on several devices.

    Args:
        model: the network, in training mode or not; it is counted in training mode.
        shape: shape of the input on one device, with its batch.
        devices: number of devices.
        link: the link between devices.
        device: device type, "cpu" or "cuda", with the rates of the parameters' dtype, calibrated here or shipped; or a
            `Device`.
        states: optimizer's numbers per parameter: 1 for SGD with momentum, 2 for Adam.

    Raises:
        SizeError: `devices` or a length is not positive, `shape` has fewer than three axes or is too small for the
            network in training, or `states` is negative.
    """
    if isinstance(states, bool) or not isinstance(states, int) or states < 0:
        raise SizeError(f"`states` is a whole number from 0, such as 2 for Adam; found {states!r}")
    if devices < 1 or len(shape) < 3 or min(shape) < 1:
        raise SizeError(f"a number of devices and the shape of an input are needed, not {devices} and {tuple(shape)}")
    link, rates = link or Link(), calibrated(device, _products_of(model)) if isinstance(device, str) else device
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
        # The backward pass costs two forward passes: one product for the input's gradient, one for the weight's.
        computing=3 * macs / rates.macs_per_second + TRAFFIC * kept / rates.bytes_per_second,
        exchanging=link.seconds(gradients, devices) if devices > 1 else 0.0,
        layers=tuple(_layer(n, m, (s[0] * devices, *s[1:]), devices, link, kind) for n, (m, s) in maps.items()),
    )


def _products_of(model: nn.Module) -> str:
    """Return the dtype of a network's products as far as rates are kept: that of its parameters, or float32."""
    names = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
    return names.pop() if len(names) == 1 and names <= set(DTYPES) else "float32"


def _counted(model: nn.Module, shape: Sequence[int]) -> tuple[int, int, dict[str, tuple[nn.Module, tuple[int, ...]]]]:
    """Count kept bytes and multiply-accumulates of a training step, and find the attentions with their input shapes."""
    maps: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}

    def seen(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            maps[name] = module, tuple(arguments[0].shape)

        return hook

    handles = [m.register_forward_pre_hook(seen(n)) for n, m in _attentions(model).items()]
    training = {m: m.training for m in model.modules()}
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    # Fake tensors, not meta tensors: they keep the device type, on which branches of a layer depend.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    state = {n: mode.from_tensor(t).requires_grad_(t.requires_grad) for n, t in model.named_parameters()}
    state |= {n: mode.from_tensor(t) for n, t in model.named_buffers()}
    counter = flop_counter()
    try:
        # Training mode: batch norms and dropout keep other tensors than in evaluation.
        model.train()
        kept = Kept(state.values())
        with mode, counter, kept, torch.enable_grad():
            functional_call(model, state, (torch.empty(tuple(shape), dtype=dtype),))
    except (ValueError, RuntimeError) as error:
        # Torch's own words: batch norms need two values for each channel, windows their own length.
        reason = str(error).strip().splitlines()[0]
        raise SizeError(
            f"`shape`: the network does not train on an input of shape {tuple(shape)} ({reason}); give a larger image "
            "or batch"
        ) from error
    finally:
        for module, mine in training.items():
            module.training = mine
        for handle in handles:
            handle.remove()
    return kept.bytes, counter.get_total_flops() // 2, maps


def _attentions(model: nn.Module) -> dict[str, nn.Module]:
    """Find the outermost attentions, by name."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, Attention | Block)}
    return {n: m for n, m in found.items() if not any(n.startswith(f"{other}.") for other in found)}


def _layer(name: str, module: nn.Module, shape: tuple[int, ...], devices: int, link: Link, device: str) -> Layer:
    kind = type(module).__name__
    try:
        found = communication(module, shape, devices, link=link, device=device)
    except ShardingError as error:
        return Layer(name, kind, shape, None, str(error), 0.0)
    return Layer(name, kind, shape, found, "", found.seconds(link))
