"""Facts of the papers' layouts."""

import pytest
from torch import nn

import polyattn as pa
from polyattn.vision.places import DEPTHS, LAYOUTS, places_of


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_place_of_every_layout_is_a_residual_block(name: str, layout: str):
    blocks = {f"layer{stage}.{block}" for stage, depth in enumerate(DEPTHS[name], 1) for block in range(depth)}
    places = places_of(name, layout)
    assert set(places) <= blocks
    assert len(set(places)) == len(places) > 0


def test_deep_networks_have_as_many_bat_blocks_as_resnet50():
    assert {len(places_of(name, "bat")) for name in ("resnet50", "resnet101", "resnet152", "seresnet50")} == {5}
    assert len(places_of("resnet18", "bat")) == 2


def test_poly_nl_comes_right_before_the_last_block_of_its_stage():
    assert places_of("resnet101", "poly_nl") == ("layer3.21",)
    assert places_of("resnet152", "res345") == ("layer2.6", "layer3.34", "layer4.1")


def test_names_of_submodules_are_given_back():
    assert places_of("resnet18", ["layer1.0", "bn1"]) == ("layer1.0", "bn1")
    assert places_of("resnet18", "layer1.0") == ("layer1.0",)


def test_an_unknown_layout_is_refused():
    with pytest.raises(pa.InsertError, match=r"res6.*res345"):
        places_of("resnet50", "res6")


@pytest.mark.parametrize("name", DEPTHS)
def test_depths_are_those_of_the_networks(name: str):
    import torch

    with torch.device("meta"):
        model = getattr(pa.vision, name)()
    stages = (getattr(model, f"layer{stage}") for stage in range(1, 5))
    assert tuple(len(stage) for stage in stages if isinstance(stage, nn.Sequential)) == DEPTHS[name]
