"""Facts of `insert` in networks of other layouts: the right axis is the channels, or the call is refused."""

import pytest
import torch
from timm.models import ConvNeXt, MlpMixer, SwinTransformer, VisionTransformer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

import polyattn as pa

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SMALL = {"img_size": 32, "num_classes": 5}
NETWORKS = {
    "ViT": (lambda: VisionTransformer(patch_size=8, embed_dim=24, depth=2, num_heads=2, **SMALL), "blocks.0", 24),
    "ViT, registers": (
        lambda: VisionTransformer(patch_size=8, embed_dim=24, depth=2, num_heads=2, reg_tokens=4, **SMALL),
        "blocks.0",
        24,
    ),
    "ViT of torchvision": (
        lambda: TorchvisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5),
        "encoder.layers.encoder_layer_0",
        24,
    ),
    "Swin": (
        lambda: SwinTransformer(patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, **SMALL),
        "layers.1",
        16,
    ),
    "Mixer": (lambda: MlpMixer(patch_size=8, num_blocks=2, embed_dim=24, **SMALL), "blocks.0", 24),
    "ConvNeXt": (lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(4, 6, 10, 12), num_classes=5), "stages.1", 6),
}


@pytest.mark.parametrize(("make", "place", "width"), NETWORKS.values(), ids=NETWORKS.keys())
def test_the_channels_are_found_and_the_outputs_kept(make, place, width):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # as the last layer of torchvision's
                parameter.normal_(0, 0.1)
        before = model(IMAGE)
        pa.vision.insert(model, {place: pa.catalog.poly_nl()}, example_input=IMAGE)
        attention = model.get_submodule(place).attention
        assert attention.channels == width
        assert torch.equal(model(IMAGE), before)
        nn.init.constant_(getattr(attention, "layer", attention).beta, 1.0)
        assert not torch.allclose(model(IMAGE), before)


class Tokens(nn.Module):
    """Tokens (B, 2 + N, C) of an image in patches of 4 x 4, behind two of its own."""

    def __init__(self, norm: bool = True):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) if norm else nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)
        self.own = nn.Parameter(torch.zeros(1, 2, 6))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(torch.cat([self.own.expand(len(x), -1, -1), tokens], 1)))


def test_tokens_are_the_patches_in_their_order_and_prefix_tokens_pass_by():
    image = torch.randn(2, 3, 16, 24)
    model = Tokens()
    model.own.data.normal_()
    before = torch.cat([model.own.expand(2, -1, -1), model.patches(image).flatten(2).transpose(1, 2)], 1)
    before = model.mix(before)
    spec = "x[H,W,C]; where i : H; y[i,j,c] = x[u,j,c]"  # sums over rows
    pa.vision.insert(
        model, {"mix": lambda channels: pa.nn.Attention(spec, channels, alpha=0.0, beta=1.0)}, example_input=image
    )
    after = model.mix(torch.cat([model.own.expand(2, -1, -1), model.patches(image).flatten(2).transpose(1, 2)], 1))
    assert torch.equal(after[:, :2], before[:, :2])
    rows = before[:, 2:].unflatten(1, (4, 6)).sum(1, keepdim=True).expand(-1, 4, -1, -1).flatten(1, 2)
    torch.testing.assert_close(after[:, 2:], rows)
    # Of the same aspect at another size.
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 98, 2)


def test_what_the_widths_do_not_tell_a_second_image_does():
    model, image = Tokens(norm=False), torch.randn(1, 3, 8, 8)  # 2 + 4 tokens of 6 channels
    pa.vision.insert(model, {"mix": pa.catalog.poly_nl()}, example_input=image)
    assert model.mix.attention.arrangement.channels == 2


def test_a_layout_can_be_given():
    model, image = Tokens(), torch.randn(1, 3, 16, 16)
    pa.vision.insert(model, {"mix": pa.catalog.poly_nl()}, example_input=image, layout="BNC", prefix_tokens=2)
    assert model.mix.attention.arrangement.prefix == 2


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"layout": "NCB"}, "`layout` must be such as"),
        ({"layout": "BCHW"}, "has the shape"),
        ({"prefix_tokens": 18, "layout": "BNC"}, "`prefix_tokens` must be from 0 to 17"),
    ],
)
def test_a_wrong_layout_is_refused(options, part):
    with pytest.raises(pa.InsertError, match=part):
        pa.vision.insert(Tokens(), {"mix": pa.catalog.poly_nl()}, example_input=torch.randn(1, 3, 16, 16), **options)


def test_a_layout_in_doubt_is_refused():
    class Fixed(Tokens):
        def forward(self, x):
            assert x.shape[-1] == 8
            return super().forward(x)

    with pytest.raises(pa.InsertError, match="nothing tells which axis is the channels"):
        pa.vision.insert(Fixed(norm=False), {"mix": pa.catalog.poly_nl()}, example_input=torch.randn(1, 3, 8, 8))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.a(x))


def test_a_shared_module_may_have_maps_of_several_sizes():
    class Pyramid(Network):
        def forward(self, x):
            return [self.b(self.a(x)), self.b(self.a(x[..., ::2, ::2]))]

    model = Pyramid()
    before = model(IMAGE)
    pa.vision.insert(model, {"a": pa.catalog.poly_nl()}, example_input=IMAGE)
    assert all(torch.equal(y, z) for y, z in zip(model(IMAGE), before, strict=True))


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_network_is_refused(inside: bool):
    model = Network()
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(pa.InsertError, match=r"torch\.compile"):
        pa.vision.insert(
            compiled if inside else model, {"_orig_mod.a" if inside else "a": pa.catalog.nl()}, example_input=IMAGE
        )


def test_a_distributed_network_is_refused():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = Network()
        wrapped = DistributedDataParallel(model)
        for network, place in ((wrapped, "module.a"), (model, "a")):
            with pytest.raises(pa.InsertError, match="DistributedDataParallel"):
                pa.vision.insert(network, {place: pa.catalog.nl()}, example_input=IMAGE)
    finally:
        torch.distributed.destroy_process_group()
