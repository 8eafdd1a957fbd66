"""Grad-CAM: regions of an image on which a class depends (Selvaraju et al. 2017; Poly-NL, Fig. 3), by `grad-cam`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from polyattn.errors import InsertError
from polyattn.optional import need


def grad_cam(
    model: nn.Module, images: Tensor, layer: str = "layer4", classes: int | Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Compute Grad-CAM maps (B, H, W) of a class over the images, from 0 to 1.

    The package `grad-cam` computes them (the extra `see`).

    Args:
        model: a classifier of images, (B, C, H, W) to (B, classes); its training flags and gradients are restored.
        images: (B, C, H, W).
        layer: name of the submodule with the weighted feature map, (B, C, h, w).
        classes: class of all images, or one per image; default the predicted class of each image.

    Raises:
        InsertError: `layer` is unknown, or the number of classes differs from that of the images.
        MissingPackageError: grad-cam is not installed.
    """
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        raise InsertError(f"the model has no submodule {layer!r} to weight the feature map of")
    chosen = [classes] * len(images) if isinstance(classes, int) else classes
    if chosen is not None and len(chosen) != len(images):
        raise InsertError(f"{len(chosen)} classes for {len(images)} images: give one for each, or one for all")
    package = need("pytorch_grad_cam", "see")
    outputs = need("pytorch_grad_cam.utils.model_targets", "see")
    targets = None if chosen is None else [outputs.ClassifierOutputTarget(number) for number in chosen]
    flags = {module: module.training for module in model.modules()}
    # The package runs a backward pass, which adds to gradients of a training in progress.
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        with package.GradCAM(model=model.eval(), target_layers=[modules[layer]]) as cam:
            return np.asarray(cam(input_tensor=images, targets=targets), dtype=np.float32)
    finally:
        for module, flag in flags.items():
            module.training = flag
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
