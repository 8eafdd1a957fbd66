"""Whole published checkpoints, translated to the names of a network with inserted attention.

Places differ: the BAT authors' blocks are entries `nl1` of a stage behind its residual block `1`, timm's are inside the
residual branch, before its sum, and MMAction2's are the last step of a residual block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from polyattn.errors import InsertError, WeightsError
from polyattn.nn.weights import Published, published_form
from polyattn.vision.insert import CHILD, inserted

SOURCES = ("bat", "timm", "mmcv")
"""Publishers of known checkpoints of whole networks."""

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
"""Entries of a file that hold the weights beside an epoch or an optimiser."""

RENAMED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "bat": ((r"\.se_block\.excitation\.0\.", ".se.fc1."), (r"\.se_block\.excitation\.2\.", ".se.fc2.")),
    "timm": (),
    "mmcv": (
        (r"^backbone\.", ""),
        (r"^(cls_head\.fc_cls|head\.fc)\.", "fc."),
        (r"\bconv(\d)\.conv\.", r"conv\1."),
        (r"\bconv(\d)\.bn\.", r"bn\1."),
        (r"\bdownsample\.conv\.", "downsample.0."),
        (r"\bdownsample\.bn\.", "downsample.1."),
    ),
}
"""Patterns of a source's names outside its attention, and torchvision's or timm's names."""

BESIDE: Mapping[str, Mapping[str, str]] = {
    "timm": {"bn3": "se", "bn2": "se", "conv2_kxk": "attn", "conv2b_kxk": "attn", "conv3_1x1": "attn_last"},
    "mmcv": {"bn3": "nonlocal_block"},
}
"""Inside a residual block: the submodule that a source's attention comes right after, and the attention's name."""


@dataclass
class Translated:
    """A published dictionary under a network's names.

    Attributes:
        tensors: tensors by the network's names.
        names: published names by the network's names.
        forms: the blocks with their published forms.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    forms: list[tuple[nn.Module, Published]] = field(default_factory=list)

    def adopt(self, scale: float | None) -> None:
        """Set the rules of its published form on each block."""
        for block, form in self.forms:
            form.adopt(block, scale)


def unwrapped(state_dict: Any) -> dict[str, Tensor]:
    """Return the weights in a file's content, such as `{"epoch": 3, "state_dict": {...}}`.

    Raises:
        InsertError: the content is not a dictionary of tensors by name; names the other entries.
    """
    if not isinstance(state_dict, Mapping):
        raise InsertError(f"`state_dict` must be a dictionary of tensors by name, not a {type(state_dict).__name__}")
    for name in WRAPPERS:
        if isinstance(state_dict.get(name), Mapping):
            return unwrapped(state_dict[name])
    other = [repr(key) for key, value in state_dict.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other:
        raise InsertError(
            f"`state_dict` must hold tensors by name, or a dictionary of them under {' or '.join(map(repr, WRAPPERS))};"
            f" these entries are not tensors: {', '.join(other)}"
        )
    return dict(state_dict)


def stripped(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Drop first components common to all names and unknown to the network: `module.`, `backbone.`."""
    own, found = {key.partition(".")[0] for key in model.state_dict()}, dict(tensors)
    # A loop, as wrappers nest: `module.backbone.`.
    while len(first := {key.partition(".")[0] for key in found}) == 1 and not first & own:
        inner = {key.partition(".")[2]: tensor for key, tensor in found.items()}
        # A name without a second component would become empty.
        if "" in inner:
            break
        found = inner
    return found


def translated(model: nn.Module, tensors: Mapping[str, Tensor], source: str, skipped: tuple[str, ...]) -> Translated:
    """Find the network's weights in a published dictionary.

    Args:
        model: a network with inserted attention.
        tensors: tensors of the published network, by its names.
        source: one of `SOURCES`.
        skipped: submodules, such as `layer2.1.attention`, exempt from being blocks of the source.

    Raises:
        InsertError: `source` is unknown, or a block is not one of its blocks.
    """
    if source not in SOURCES:
        raise InsertError(f"`source` must be {' or '.join(map(repr, SOURCES))} or None, not {source!r}")
    left, result = _renamed(tensors, source), Translated({}, {})
    for place, target in inserted(model).items():
        block, here = target.get_submodule(CHILD), f"{place}.{CHILD}"
        try:
            form = published_form(block, "bat_video" if (source, getattr(block, "dim", 2)) == ("bat", 3) else source)
        except WeightsError as error:
            if here in skipped:
                continue
            raise InsertError(f"'{here}': {error}; skip={here!r} keeps its weights") from error
        if here not in skipped:
            result.forms.append((block, form))
        state = block.state_dict()
        prefix = _prefix(model, place, source, [form.name(name) for name in state], left)
        for name, tensor in state.items():
            there = prefix + form.name(name)
            result.names[f"{here}.{name}"] = there
            if there in left:
                # Matched keys are removed, so the rest is the network outside its attention.
                result.names[f"{here}.{name}"] = key = left.pop(there)
                result.tensors[f"{here}.{name}"] = tensors[key]
            elif name in form.zeros:
                result.tensors[f"{here}.{name}"] = torch.zeros_like(tensor)
    for name, key in left.items():
        result.tensors[name], result.names[name] = tensors[key], key
    return result


def _renamed(tensors: Mapping[str, Tensor], source: str) -> dict[str, str]:
    """Map torchvision's or timm's names outside the attention to the published ones."""
    found: dict[str, str] = {}
    for key in tensors:
        name = key
        for pattern, there in RENAMED[source]:
            name = re.sub(pattern, there, name)
        found[key if name in found else name] = key  # a second key for one name is reported as unexpected
    return found


def _prefix(model: nn.Module, place: str, source: str, names: list[str], found: Mapping[str, str]) -> str:
    """Return the prefix of the published names of the block at a place."""
    parent, _, last = place.rpartition(".")
    before = f"{parent}." if parent else ""
    if source == "bat":
        return f"{before}nl{last}."
    choices = [f"{place}.non_local_block."] if source == "mmcv" else []
    beside = BESIDE[source].get(last)
    modules = dict(model.named_modules())
    # In a bottleneck, timm's attention follows bn3; bn2 is the last norm of basic blocks only.
    if beside and not (last == "bn2" and f"{before}bn3" in modules):
        choices.append(f"{before}{beside}.")
    choices.append(f"{place}.")  # a published block in the place of an `nn.Identity`
    return next((prefix for prefix in choices if any(prefix + name in found for name in names)), choices[0])
