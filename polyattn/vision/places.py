"""The papers' places of their blocks, as names of the submodules before the attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polyattn.errors import InsertError

STAGES = ("res3", "res4", "res5")

DEPTHS: Mapping[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnext50_32x4d": (3, 4, 6, 3),
    "seresnet50": (3, 4, 6, 3),
}
"""Residual blocks in Res2 to Res5, which torchvision and timm call layer1 to layer4."""

EVERY: Mapping[str, tuple[int, int]] = {"resnet101": (2, 7), "resnet152": (4, 12)}
"""Spacing of the BAT paper's blocks in Res3 and Res4 of its deep networks, in residual blocks (as in its authors' code,
BA-Transform/BAT-Image-Classification); 2 in all others."""

LAYOUTS = ("bat", "poly_nl", *STAGES, "res345")


def places_of(network: str, places: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of the submodules before the attention.

    Args:
        network: a name of `DEPTHS`.
        places: names of submodules, returned unchanged; or the name of a layout:

            - "bat": evenly on Res3 and Res4, five blocks in all in ResNet-50, -101 and -152 (BAT, section 4 and
              Table 3, "+2, +3");
            - "poly_nl": one, right before the last residual block of Res4 (Poly-NL, section 5.1); the same as "res4";
            - "res3", "res4", "res5", "res345": one right before the last residual block of that stage, or of each
              (Poly-NL, Table 2).

    Raises:
        InsertError: the layout is unknown.

    >>> places_of("resnet50", "bat")
    ('layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5')
    >>> places_of("resnet50", "res345")
    ('layer2.2', 'layer3.4', 'layer4.1')
    """
    if not isinstance(places, str):
        return tuple(places)
    if places == "bat":
        stages = zip((2, 3), EVERY.get(network, (2, 2)), strict=True)
        # The first block comes after `step` residual blocks, not before them.
        return tuple(
            f"layer{stage}.{block}" for stage, step in stages for block in range(step - 1, _depth(network, stage), step)
        )
    stages = {"poly_nl": (3,), "res3": (2,), "res4": (3,), "res5": (4,), "res345": (2, 3, 4)}
    if places in stages:
        # Counted from 0, the last residual block is depth - 1; the attention follows the one before it.
        return tuple(f"layer{stage}.{_depth(network, stage) - 2}" for stage in stages[places])
    if "." in places or places.startswith("layer"):
        return (places,)
    raise InsertError(f"there is no layout {places!r}; there are {', '.join(LAYOUTS)}, or give names of submodules")


def _depth(network: str, stage: int) -> int:
    return DEPTHS[network][stage - 1]
