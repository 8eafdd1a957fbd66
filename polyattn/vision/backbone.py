"""Loading weights of a plain backbone, or of a whole published network, into a network with attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from polyattn.errors import InsertError
from polyattn.vision.inflate import Inflation, inflate_weight
from polyattn.vision.insert import CHILD, inserted
from polyattn.vision.published import Translated, stripped, translated, unwrapped

Model = TypeVar("Model", bound=nn.Module)


def load_backbone(
    model: Model,
    state_dict: Mapping[str, Any],
    source: str | None = None,
    *,
    skip: str | Iterable[str] = (),
    inflation: Inflation = "mean",
    scale: float | None = None,
) -> Model:
    """Load the weights of a network without attention, or of a published network with attention, in place.

    The dictionary must have exactly the network's own entries; only counts of batches may be missing. Without `source`
    the inserted attention keeps its weights. 2D kernels are inflated to the network's 3D kernels, and a 1x1 convolution
    may stand for a linear layer. A detector also accepts the weights of its backbone alone (`backbone.body`). Wrappers
    around the weights (`{"state_dict": ...}`) and a first name common to all (`module.`) are dropped.

    | source | checkpoints of | attention there |
    | --- | --- | --- |
    | None | torchvision, timm | none |
    | `"bat"` | the code of Chi et al., image networks, and video networks where the model is one | `layer2.nl1` |
    | `"timm"` | timm's ResNet and ByobNet | `layer2.1.se` after `layer2.1.bn3`; `stages.0.0.attn` |
    | `"mmcv"` | MMAction2's ResNets of images and videos | `backbone.layer2.1.non_local_block` |

    Args:
        model: a network of `polyattn.vision`, or any network with attention inserted by `polyattn.vision.insert`.
        state_dict: weights of the same network or of its 2D form; with the attention if `source` is given.
        source: publisher of the weights, whose names they have; the blocks follow its rules too, as in
            `polyattn.nn.load_weights`.
        skip: submodules not to load, such as "fc" for a classifier of other classes.
        inflation: see `polyattn.vision.inflate`.
        scale: factor before the softmax of non-local blocks, see `polyattn.nn.load_weights`.

    Returns:
        The network.

    Raises:
        InsertError: `source` is unknown or its blocks differ from the network's; keys are missing or unexpected, or
            shapes differ, all of them named. The network is then unchanged.

    >>> from polyattn.vision import resnet18
    >>> model = resnet18({"layer3.0": "x[N,C]; y[a,b] = 1/N * x[a,d]*w[d,f]*x[e,f] * x[e,b]"}, image_size=32)
    >>> _ = load_backbone(model, resnet18().state_dict())
    """
    tensors = stripped(unwrapped(state_dict), model)
    body = _body(model, tensors)
    tensors = stripped(tensors, body)
    skipped = (skip,) if isinstance(skip, str) else tuple(skip)
    for name in skipped:
        if not any(_under(key, (name,)) for key in (*tensors, *body.state_dict())):
            raise InsertError(f"nothing is called {name!r} in the network or in the dictionary, and cannot be skipped")
    # Without a source the dictionary has no attention, so its entries must not count as missing.
    kept = skipped if source is not None else (*skipped, *(f"{name}.{CHILD}" for name in inserted(body)))
    if source is None:
        given = Translated(tensors, {key: key for key in tensors})
    else:
        given = translated(body, tensors, source, skipped)
    if scale is not None and not any(form.scale for _, form in given.forms):
        raise InsertError(f"no block of the network has a scale before a softmax that scale={scale!r} would set")
    _load(body, given, kept, skipped, inflation)
    # Rules change only after all weights have fitted: a refused call leaves the blocks unchanged.
    given.adopt(scale)
    return model


def _load(
    body: nn.Module, given: Translated, kept: tuple[str, ...], skipped: tuple[str, ...], inflation: Inflation
) -> None:
    own = {key: tensor for key, tensor in body.state_dict().items() if not _under(key, kept)}
    loaded: dict[str, Tensor] = {}
    wrong: dict[str, list[str]] = {"missing": [], "too many": [], "of another shape": []}
    for key, tensor in given.tensors.items():
        there = given.names.get(key, key)
        if _under(key, skipped) or _under(there, skipped):
            continue
        if key not in own:
            if not key.endswith("num_batches_tracked"):  # frozen batch norms have no such count
                wrong["too many"].append(f"'{there}'")
            continue
        loaded[key] = _fitted(tensor, own[key], inflation)
        if loaded[key].shape != own[key].shape:
            shapes = f"{tuple(tensor.shape)}, and {tuple(own[key].shape)} in the network"
            wrong["of another shape"].append(f"'{there}' is {shapes}")
    for key in own:
        if key not in loaded and not key.endswith("num_batches_tracked"):
            wrong["missing"].append(f"'{given.names.get(key, key)}'")
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        hint = "; skip=(...) leaves submodules out" if "'fc." in listed else ""
        raise InsertError(f"the weights do not fit the network: {listed}{hint}")
    # All keys are checked above; strict loading would insist on counts of batches, too.
    body.load_state_dict(loaded, strict=False)


def _fitted(tensor: Tensor, own: Tensor, inflation: Inflation) -> Tensor:
    """Convert a kernel to the network's form: 2D is inflated to 3D, 1x1 becomes a matrix, and a matrix 1x1."""
    if (tensor.dim(), own.dim()) == (4, 5):
        return inflate_weight(tensor, own.shape[2], inflation)
    # A 1x1 kernel and a matrix differ in trailing axes of length 1 only.
    least = min(tensor.dim(), own.dim())
    ones = {*tensor.shape[least:], *own.shape[least:]} <= {1}
    return tensor.reshape(own.shape) if ones and tensor.shape[:least] == own.shape[:least] else tensor


def _body(model: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Return the backbone inside a detector, unless the weights are those of the whole detector."""
    prefix = "backbone.body."
    if any(key.startswith(prefix) for key in model.state_dict()) and not any(k.startswith(prefix) for k in state_dict):
        return model.get_submodule(prefix.rstrip("."))
    return model


def _under(key: str, names: tuple[str, ...]) -> bool:
    return any(key.startswith(f"{name}.") for name in names)
