"""Weights of a plain backbone, such as torchvision's or timm's, for a network that has attention in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from polyattn.errors import InsertError
from polyattn.vision.inflate import Inflation, inflate_weight
from polyattn.vision.insert import CHILD, inserted

Model = TypeVar("Model", bound=nn.Module)


def load_backbone(
    model: Model,
    state_dict: Mapping[str, Tensor],
    *,
    skip: str | Iterable[str] = (),
    inflation: Inflation = "mean",
) -> Model:
    """Load the weights of a network without attention into one with attention, in place.

    All of the network's own entries have to be in the dictionary and the other way round; the inserted attention keeps
    its weights. 2D kernels are inflated where the network has 3D ones. A detector takes the weights of its backbone
    alone (`backbone.body`), if the dictionary is one.

    Args:
        model: a network of `polyattn.vision`, or any with attention that `polyattn.vision.insert` put in.
        state_dict: of the same network without attention, or of its 2D form.
        skip: submodules that are not loaded, such as "fc" for a classifier of other classes.
        inflation: see `polyattn.vision.inflate`.

    Raises:
        InsertError: keys that are missing or too many, or shapes that differ, all named. The network is then as it was.

    >>> from polyattn.vision import resnet18
    >>> model = resnet18({"layer3.0": "x[N,C]; y[a,b] = 1/N * x[a,d]*w[d,f]*x[e,f] * x[e,b]"}, image_size=32)
    >>> _ = load_backbone(model, resnet18().state_dict())
    """
    body = _body(model, state_dict)
    skipped = (skip,) if isinstance(skip, str) else tuple(skip)
    attention = tuple(f"{name}.{CHILD}." for name in inserted(body))
    own = {
        key: tensor
        for key, tensor in body.state_dict().items()
        if not key.startswith(attention) and not _under(key, skipped)
    }
    given = {key: tensor for key, tensor in state_dict.items() if not _under(key, skipped)}
    for name in skipped:
        if not any(_under(key, (name,)) for key in (*state_dict, *body.state_dict())):
            raise InsertError(f"nothing is called {name!r} in the network or in the dictionary, and cannot be skipped")
    # Frozen batch norms count no batches.
    given = {k: t for k, t in given.items() if k in own or not k.endswith("num_batches_tracked")}
    loaded = {
        key: inflate_weight(tensor, own[key].shape[2], inflation)
        if key in own and tensor.dim() == 4 and own[key].dim() == 5
        else tensor
        for key, tensor in given.items()
    }
    wrong = [f"'{key}' is missing" for key in own if key not in loaded]
    wrong += [f"'{key}' is no part of the network" for key in loaded if key not in own]
    wrong += [
        f"'{key}' is {tuple(tensor.shape)}, and {tuple(own[key].shape)} in the network"
        for key, tensor in loaded.items()
        if key in own and own[key].shape != tensor.shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        hint = "; skip=(...) leaves submodules out" if any("fc." in line for line in wrong) else ""
        raise InsertError(f"the weights do not fit the backbone: {'; '.join(wrong[:6])}{more}{hint}")
    body.load_state_dict(loaded, strict=False)
    return model


def _body(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The backbone inside a detector, if the weights are not those of the whole detector."""
    prefix = "backbone.body."
    if any(key.startswith(prefix) for key in model.state_dict()) and not any(k.startswith(prefix) for k in state_dict):
        return model.get_submodule(prefix.rstrip("."))
    return model


def _under(key: str, names: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{name}.") for name in names)
