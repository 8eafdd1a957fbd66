"""`piecewise`: a twin of a module for shards of its maps, with the module's own parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from polyattn.errors import ShardingError
from polyattn.nn.attention import Attention
from polyattn.nn.bat_shard import BATransformPiece
from polyattn.nn.block import AXES, Block
from polyattn.nn.blocks.a2 import A2
from polyattn.nn.blocks.axial import Axial
from polyattn.nn.blocks.bat_block import BATBlock
from polyattn.nn.blocks.bat_transform import BATransform
from polyattn.nn.blocks.cgnl import CGNL
from polyattn.nn.blocks.criss_cross import CrissCross
from polyattn.nn.blocks.efficient_nl import EfficientNL
from polyattn.nn.blocks.glore import GloRe
from polyattn.nn.blocks.latent_gnn import LatentGNN, _Kernel
from polyattn.nn.blocks.non_local import NonLocal
from polyattn.nn.norms import PieceBatchNorm, PieceConvolution, PieceDropout, PieceGroupNorm
from polyattn.nn.shards import PieceFunction
from polyattn.planning import Link
from polyattn.runtime.communicator import Pieces
from polyattn.runtime.function import SpecFunction

POINTWISE = (nn.Identity, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Sequential, nn.ModuleList, nn.ModuleDict)
FLAT = (EfficientNL, A2, CGNL, GloRe, LatentGNN, _Kernel, NonLocal)
"""Blocks whose specifications have one axis N for all positions."""
PREDICTORS = ("conv_p", "conv_q", "conv_t")
"""Convolutions of a BA-Transform over pooled positions."""


class AxialPiece(Axial):
    """Axial attention on a shard: sharded lines meet through the exchange, the others are local."""

    _cut_lines: PieceFunction
    positions: Pieces

    def _along(self, x: Tensor, axis: int, layers: nn.ModuleDict) -> Tensor:
        if axis != self.positions.axis and not x.numel():
            return layers["value"](x)  # an empty shard has neither queries nor keys
        return super()._along(x, axis, layers)

    def _mixing(self, axis: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
        return self._cut_lines if axis == self.positions.axis else self._lines


def piecewise(module: nn.Module, exchange: Pieces, link: Link | None = None) -> nn.Module:
    """Return a twin of a module for shards of maps (B, C, *spatial) along `exchange.axis`.

    The twin shares no mutable state: `torch.func.functional_call` supplies its parameters and buffers. It is cheap, and
    serves one call: two calls on one twin would share its exchange and its mode.

    Raises:
        ShardingError: a layer cannot be sharded; names the layer and the reason.
    """
    return _twin(module, exchange, link or Link(), "", {})


def copied(module: nn.Module, made: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Copy a module tree with its present modes and submodules, sharing the tensors."""
    made = {} if made is None else made
    if module not in made:
        twin = made[module] = _alike(module)
        for child, part in module._modules.items():
            if part is not None:
                twin._modules[child] = copied(part, made)
    return made[module]


def _alike(module: nn.Module, kind: type[nn.Module] | None = None) -> nn.Module:
    """Copy one module, with the same children, as an instance of another class."""
    # No __init__: a constructor would allocate and initialise parameters that the twin never uses.
    twin = object.__new__(kind or type(module))
    state = twin.__dict__
    state.update(module.__dict__)
    # functional_call swaps entries of these dictionaries; without copies it would swap the module's own.
    for held in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        state[held] = state[held].copy()
    return twin


KINDS: dict[type[nn.Module] | tuple[type[nn.Module], ...], type[nn.Module]] = {
    _BatchNorm: PieceBatchNorm,
    nn.GroupNorm: PieceGroupNorm,
    _ConvNd: PieceConvolution,
    (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d): PieceDropout,
    Axial: AxialPiece,
    BATransform: BATransformPiece,
}
"""Twin classes; other modules keep their own class."""


def _twin(module: nn.Module, exchange: Pieces, link: Link, name: str, made: dict[nn.Module, nn.Module]) -> nn.Module:
    # A module used in two places gets one twin, so that tied weights stay tied.
    if module in made:
        return made[module]
    if exchange.axis == 1 and not isinstance(module, Attention):
        raise _refusal(module, name, "along channels, only an Attention can be")
    kind = next((piece for known, piece in KINDS.items() if isinstance(module, known)), None)
    twin = made[module] = _alike(module, kind)
    state = twin.__dict__
    if isinstance(module, _ConvNd):
        if set(module.kernel_size) | set(module.stride) != {1} or any(p not in (0, "valid") for p in module.padding):
            raise _refusal(module, name, "a convolution of more than one position needs its neighbours' rows")
    elif isinstance(module, Attention):
        _attention(module, state, exchange, link, name)
    elif isinstance(module, Block | _Kernel):
        _block(module, state, exchange, link, name)
    elif kind is not None:
        state["exchange"] = exchange
    # ConvNormReLU only calls its children, whose twins are built below.
    elif not isinstance(module, POINTWISE) and type(module).__module__ != "polyattn.nn.conv_norm":
        raise _refusal(module, name, "what it does to positions is not known here")
    for child, part in module._modules.items():
        if part is not None and isinstance(module, BATransform) and child in PREDICTORS:
            twin._modules[child] = _alike(part)  # its input is pooled, and whole on every shard
        elif part is not None:
            twin._modules[child] = _twin(part, exchange, link, f"{name}.{child}".lstrip("."), made)
    return twin


def _attention(module: Attention, state: dict[str, Any], exchange: Pieces, link: Link, name: str) -> None:
    sizes, flat = module.position_sizes, len(module.position_sizes) == 1 and exchange.axis > 1
    if exchange.axis == 1:
        size, *_ = module.spec.sizes.atoms(module.channel_size)  # grouped channels are sharded by whole groups
    else:
        size = sizes[0] if flat else _at(sizes, exchange, module, name)
    atoms = module.spec.sizes.atoms(size)
    if size.isdigit() or len(atoms) > 1:
        raise _refusal(module, name, f"its positions {size} are {'a fixed number' if size.isdigit() else 'split'}")
    # A parameter over N has one row per position; only shards of the first axis are contiguous ranges of N.
    if flat and exchange.axis > 2 and any(size in atoms for p in module.spec.parameters for atoms in _atoms(module, p)):
        raise _refusal(module, name, f"a parameter has an axis of its positions {size}, so cut along the first axis")
    state["_function"] = PieceFunction(module._function, exchange, size, flat, link)
    state["_check"] = _unchecked


def _atoms(module: Attention, parameter: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(atoms) for atoms in module.spec.shape(parameter))


def _block(module: nn.Module, state: dict[str, Any], exchange: Pieces, link: Link, name: str) -> None:
    reason = _reason(module, exchange)
    if reason:
        raise _refusal(module, name, reason)
    flat = isinstance(module, FLAT)
    axes = AXES[module.dim] if isinstance(module, Block) else ("H", "W")
    size = "N" if flat else _at(axes, exchange, module, name)
    if isinstance(module, Axial):
        # Axial moves each attended axis to W before it calls its one function.
        size = "W"
    for attribute, value in list(state.items()):
        if isinstance(value, SpecFunction) and any(size == s for s in value.position_sizes):
            made = PieceFunction(value, exchange, size, flat, link)
            # Only lines along the sharded axis meet through the exchange; Axial keeps its own function for the others.
            state["_cut_lines" if isinstance(module, Axial) else attribute] = made
    state["positions"], state["check"] = exchange, _unchecked


def _reason(module: nn.Module, exchange: Pieces) -> str:
    """Return the reason why a block cannot be sharded; "" if it can."""
    if isinstance(module, NonLocal):
        if module.similarity != "dot_product":
            return f"its similarities ({module.similarity}) compare every position with every other"
        if module.sub_sample > 1:
            return "its pooling windows lie across the cuts"
    if isinstance(module, CrissCross | Axial) and module.normalisation == "softmax":
        return "its softmax compares a position with others along the axis that is cut; with 'scaling' it can be cut"
    if isinstance(module, BATransform):
        return _mixing(module, exchange)
    if not isinstance(module, (*FLAT, CrissCross, Axial, BATBlock)):
        return "it has no form for pieces"
    return ""


def _mixing(module: BATransform, exchange: Pieces) -> str:
    """Return the reason why a bilinear transform cannot be sharded; "" if it can.

    Its matrices mix positions along the sharded axis, so the map needs an all-to-all that streamed pieces do not have.
    """
    spatial = module.groups and exchange.axis - module.dim in (0, 1) and not module.downsample
    if not exchange.deals and (spatial or (module.temporal_groups and exchange.axis == module.dim - 1)):
        return (
            "its matrices mix rows with rows, frames with frames; with downsample=True (and no temporal groups) it can"
        )
    return ""


def _at(sizes: tuple[str, ...], exchange: Pieces, module: nn.Module, name: str) -> str:
    axis = exchange.axis - 2
    if not 0 <= axis < len(sizes):
        raise _refusal(module, name, f"its positions have {len(sizes)} axes, and axis {exchange.axis} is none of them")
    return sizes[axis]


def _unchecked(x: Tensor) -> None:
    """Accept any piece: a shard may be empty, and the whole map is checked before it is sharded."""


def _refusal(module: nn.Module, name: str, reason: str) -> ShardingError:
    where = f" ('{name}')" if name else ""
    return ShardingError(f"{type(module).__name__}{where} cannot be cut along its positions: {reason}")
