"""Facts of `vision.insert`: the same network with attention in it, or an error and no change."""

import copy
import pickle
from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import polyattn as pa


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(weights=None).eval()


def test_a_network_keeps_its_outputs_and_its_checkpoint_keys(model: nn.Module, images: torch.Tensor):
    before, keys = model(images), set(model.state_dict())
    spec, grid = pa.catalog.poly_nl(), pa.catalog.ba_transform()
    pa.vision.insert(model, {"layer2.1": spec, "layer3.0": grid}, example_input=images, sizes={"G": 4, "K": 2})
    assert torch.equal(model(images), before)
    assert keys < set(model.state_dict())


def test_attention_is_at_work_once_its_beta_is_not_zero(model: nn.Module, images: torch.Tensor):
    before = model(images)
    pa.vision.insert(model, {"layer1.0": pa.catalog.nl()}, example_input=images)
    nn.init.constant_(model.layer1[0].attention.beta, 0.5)
    assert not torch.allclose(model(images), before)


@pytest.mark.parametrize("name", pa.catalog.names("third_order"))
def test_every_catalogue_entry_trains_inside_a_network(name: str, images: torch.Tensor):
    model = resnet18(weights=None)
    spec = pa.catalog.get(name)
    sizes = {"R": 4, "G": 4, "K": 2, "S": 2, **({} if "U" in spec.sizes.names else {"V": 4})}
    sizes = {n: v for n, v in sizes.items() if n in spec.sizes.names} | ({"M": 8} if name == "cgnl" else {})
    pa.vision.insert(model, {"layer2.0": spec}, example_input=images, sizes=sizes)
    model(images).sum().backward()
    gradients = [p.grad for n, p in model.named_parameters() if n.startswith("layer2.0.attention")]
    assert gradients
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert model.layer2[0].attention.beta.grad != 0


def test_copies_and_pickles_have_attention_of_their_own(model: nn.Module, images: torch.Tensor):
    pa.vision.insert(model, {"layer2": pa.catalog.poly_nl()}, example_input=images)
    nn.init.constant_(model.layer2.attention.beta, 0.1)
    expected = model(images)
    copied, loaded = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    nn.init.constant_(model.layer2.attention.beta, 7.0)
    assert torch.equal(copied(images), expected)
    assert torch.equal(loaded(images), expected)


def test_remove_undoes_insert(model: nn.Module, images: torch.Tensor):
    before, keys = model(images), list(model.state_dict())
    pa.vision.insert(model, {"layer2.1": pa.catalog.nl()}, example_input=images)
    nn.init.constant_(model.layer2[1].attention.beta, 0.5)
    pa.vision.remove(model)
    assert torch.equal(model(images), before)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize(
    ("places", "part"),
    [
        ({"layer2.7": "nl"}, "layer2.1"),
        ({"layr2": "nl"}, "layer2"),
        ({"layer1.0": "nl", "nowhere": "nl"}, "nowhere"),
        ({"fc": "nl"}, "fc"),
    ],
)
def test_a_wrong_place_is_named_and_nothing_is_changed(model: nn.Module, images: torch.Tensor, places: dict, part: str):
    keys = list(model.state_dict())
    with pytest.raises(pa.PolyattnError, match=part):
        pa.vision.insert(model, {k: pa.catalog.get(v) for k, v in places.items()}, example_input=images)
    assert list(model.state_dict()) == keys


def test_a_second_insertion_at_one_place_is_refused(model: nn.Module, images: torch.Tensor):
    pa.vision.insert(model, {"layer2.1": pa.catalog.nl()}, example_input=images)
    with pytest.raises(pa.InsertError, match=r"layer2\.1"):
        pa.vision.insert(model, {"layer2.1": pa.catalog.nl()}, example_input=images)


def test_cost_counts_what_is_added(model: nn.Module, images: torch.Tensor):
    plain = pa.vision.cost(model, images[:1])
    pa.vision.insert(model, {"layer2.1": pa.catalog.poly_nl()}, example_input=images)
    priced = pa.vision.cost(model, images[:1])
    assert priced.parameters == plain.parameters + 3 * 128 * 128 + 2
    assert priced.parameters_added == 3 * 128 * 128 + 2
    assert priced.macs - plain.macs == priced.macs_added > 0


def small() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 4, 1))


class Runs(nn.Module):
    """A module that goes through all its children, an inserted one among them."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for child in self.children():
            x = child(x)
        return x


def test_attention_after_a_sequence_runs_once():
    model, image = small(), torch.randn(1, 3, 6, 6)
    before = model[0](image)
    pa.vision.insert(model, {"0": lambda channels: nn.Conv2d(channels, channels, 1)}, example_input=image)
    torch.testing.assert_close(model[0](image), model[0].attention(before))


def test_costs_by_hand():
    """36 positions: 8 x 3 x 9 weights of the first convolution, 4 x 8 of the second, 8 x 8 of what is inserted."""
    model, image = small(), torch.zeros(1, 3, 8, 8)
    assert pa.vision.cost(model, image).macs == 36 * (8 * 3 * 9 + 4 * 8)
    pa.vision.insert(model, {"0.0": lambda channels: nn.Conv2d(channels, channels, 1, bias=False)}, example_input=image)
    found = pa.vision.cost(model, image)
    assert (found.macs, found.macs_added) == (36 * (8 * 3 * 9 + 4 * 8 + 8 * 8), 36 * 8 * 8)


def refusals() -> dict[str, tuple[nn.Module, dict, dict]]:
    twice = nn.ReLU()
    named = nn.Sequential(nn.Conv2d(3, 8, 1))
    named[0].attention = "own"
    layer = "x[N,C]; y[a,b] = x[a,d]*w[d,b]"
    return {
        "has an attribute 'attention' of its own": (named, {"0": layer}, {}),
        "are one module": (nn.Sequential(nn.Conv2d(3, 8, 1), twice, twice), {"1": layer, "2": layer}, {}),
        "runs each of its children": (nn.Sequential(nn.Conv2d(3, 8, 1), Runs()), {"1": layer}, {}),
        "no specification here has a size 'Q'": (small(), {"0": layer}, {"sizes": {"Q": 3}}),
        r"gives the shape \(1, 5, 4, 4\)": (small(), {"0": lambda channels: nn.Conv2d(channels, 5, 1)}, {}),
        "gives torch.float64": (small(), {"0": Doubles()}, {}),
    }


class Doubles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


@pytest.mark.parametrize("reason", refusals())
def test_what_cannot_be_inserted_is_refused_and_the_network_runs_as_before(reason: str):
    model, attentions, options = refusals()[reason]
    image = torch.randn(1, 3, 6, 6)
    before = model(image)
    with pytest.raises(pa.InsertError, match=reason):
        pa.vision.insert(model, attentions, example_input=image, **options)
    assert torch.equal(model(image), before)


class Pyramid(nn.Module):
    """Two maps in a container of some kind, and the sum of their means."""

    def __init__(self, pack, unpack):
        super().__init__()
        self.levels, self.unpack = Levels(pack), unpack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine, coarse = self.unpack(self.levels(x))
        return fine.mean((2, 3)) + coarse.mean((2, 3))


class Levels(nn.Module):
    def __init__(self, pack):
        super().__init__()
        self.fine, self.coarse, self.pack = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 4, 4), pack

    def forward(self, x: torch.Tensor):
        return self.pack(self.fine(x), self.coarse(x))


Two = namedtuple("Two", "fine coarse")
CONTAINERS = {
    "dict": (lambda a, b: {"fine": a, "p.2": b}, lambda y: y.values(), ("fine", "p.2")),
    "ordered": (lambda a, b: OrderedDict([(0, a), (1, b)]), lambda y: (y[0], y[1]), ("0", "1")),
    "list": (lambda a, b: [a, b], lambda y: y, ("0", "1")),
    "tuple": (lambda a, b: (a, b), lambda y: y, ("0", "1")),
    "named": (Two, lambda y: (y.fine, y.coarse), ("fine", "1")),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_attention_follows_entries_of_dicts_lists_and_tuples(kind: str, images: torch.Tensor):
    pack, unpack, (fine, coarse) = CONTAINERS[kind]
    model = Pyramid(pack, unpack)
    before, y = model(images), model.levels(images)
    names = [f"levels[{fine}]", f"levels[{coarse}]"]
    pa.vision.insert(model, {names[1]: pa.catalog.poly_nl(), names[0]: pa.nn.PolyNL}, example_input=images)
    torch.testing.assert_close(model(images), before)
    assert type(model.levels(images)) is type(y)
    first, second = (getattr(model.levels.attention, key.replace(".", "_")) for key in (fine, coarse))
    nn.init.constant_(first.beta, 0.5)
    nn.init.constant_(second.beta, 0.25)
    a, b = unpack(y)
    torch.testing.assert_close(model(images), first(a).mean((2, 3)) + second(b).mean((2, 3)))
    pa.vision.remove(model, "levels")
    torch.testing.assert_close(model(images), before)


def test_a_container_names_its_entries(images: torch.Tensor):
    model = Pyramid(*CONTAINERS["dict"][:2])
    for name in ("levels", "levels[coarse]"):
        with pytest.raises(
            pa.InsertError, match=r"is a dict: name one of its tensors, 'levels\[fine\]' or 'levels\[p.2\]'"
        ):
            pa.vision.insert(model, {name: pa.catalog.poly_nl()}, example_input=images)
    with pytest.raises(pa.InsertError, match="no submodule 'conv'"):
        pa.vision.insert(model, {"conv[0]": pa.catalog.poly_nl()}, example_input=images)
    assert "levels.attention" not in dict(model.named_modules())
