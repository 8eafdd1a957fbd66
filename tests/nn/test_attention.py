"""`Attention`: what it computes, on which inputs, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

import polyattn as pa
from polyattn import catalog
from polyattn.nn import Attention
from polyattn.testing import size_assignments, specifications
from tests.drawing import share

from .layers import CHANNELS, image, layer, named, reference

LINEAR = "x[N,C]; y[a,b] = 1/N * x[a,d]*w[d,b]"
POSITIONS = "x[N,C]; y[a,b] = mix[a,e]*x[e,b]"
VIDEO = "x[T,H,W,C]; y[t,i,j,b] = 1/T * x[s,i,j,d]*w1[d,f]*x[t,i,j,f] * x[s,i,j,h]*w2[h,b] + x[t,k,j,b]*rows[i,k]"


@pytest.mark.parametrize("name", catalog.names("third_order"))
@pytest.mark.parametrize("objective", ["training", "forward", "as_written"])
def test_the_output_is_alpha_x_plus_beta_y(name, objective):
    module = layer(name, objective=objective, alpha=0.5, beta=2.0, dtype=torch.float64)
    x = image(name, dtype=torch.float64)
    torch.testing.assert_close(module(x), 0.5 * x + 2 * reference(module, x))
    torch.testing.assert_close(module.attend(x), reference(module, x))


@pytest.mark.parametrize("name", ["a2_net", "axial", "e_nl", "nl"])
def test_the_published_softmax_is_computed_as_written(name):
    spec = catalog.get(name, softmax=True)
    module = Attention(spec, CHANNELS, sizes={s: 3 for s in ("R", "V") if s in spec.sizes.names}, dtype=torch.float64)
    x = torch.randn(2, CHANNELS, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(module.attend(x), reference(module, x))


@share(0.8)
@given(data=st.data())
def test_whatever_a_specification_of_the_language_says_is_what_its_layer_computes(data):
    spec = data.draw(specifications(output_like_input=True, max_inputs=1))
    sizes = data.draw(size_assignments(spec))
    (shape,) = spec.inputs.values()
    lengths = [int(size) if size.isdigit() else spec.sizes.solve(sizes)[size] for size in shape]
    if len(shape) < 2:
        with pytest.raises(pa.SpecError, match="a module's input has positions and channels"):
            Attention(spec, lengths[-1], sizes=sizes)
        return
    objective = data.draw(st.sampled_from(["training", "forward"]))
    module = Attention(spec, lengths[-1], sizes=sizes, residual=False, objective=objective, dtype=torch.float64)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, lengths[-1], *lengths[:-1], dtype=torch.float64)
    wanted = reference(module, x)
    scale = max(1.0, wanted.abs().max().item())
    torch.testing.assert_close(module(x), wanted, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("name", catalog.names("third_order"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_under_autocast_the_output_has_the_dtype_of_the_input(name, dtype):
    module, x = layer(name, alpha=0.5), image(name, dtype=dtype)
    exact = module(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert y.dtype == dtype
    assert (y - exact).norm() <= 0.03 * exact.norm()


@pytest.mark.usefixtures("_nothing_compiled_before")
def test_compiled_exported_and_mapped_the_output_of_a_16_bit_map_under_autocast_has_its_dtype():
    module, x = layer("poly_nl"), image("poly_nl", dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        eager = module(x)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
        exported = torch.export.export(module, (x,)).module()(x)
        mapped = torch.vmap(module)(x[None])[0]
        parameters = {n: p[None] for n, p in module.named_parameters()}
        with_parameters = torch.vmap(lambda p: torch.func.functional_call(module, p, (x,)))(parameters)[0]
    for y in (compiled, exported, mapped, with_parameters):
        assert y.dtype == torch.bfloat16
        assert (y - eager).norm() <= 0.03 * eager.norm()


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_with_beta_zero_a_layer_is_the_identity_to_the_bit(name):
    x = image(name)
    assert torch.equal(layer(name, beta=0.0)(x), x)


def test_no_parameter_is_a_scalar_which_could_not_be_sharded():
    module = Attention("x[N,C]; y[a,b] = gain * x[a,d]*w[d,b]", 4)
    assert module.gain.shape == module.alpha.shape == (1,)
    assert module.spec_parameters()["gain"].shape == ()
    x = torch.randn(3, 4, dtype=torch.float64)
    held = {n: p.detach().double() for n, p in module.named_parameters() if n in module.spec.parameters}
    wanted = module.spec.evaluate({"x": x, **held})
    torch.testing.assert_close(torch.from_numpy(wanted), float(module.gain.detach()) * x @ held["w"])
    with pytest.raises(pa.SizeError, match="'gain' has 0 slots"):
        module.spec.evaluate({"x": x, **held, "gain": torch.ones(2)})


def test_weights_in_which_scalars_have_no_axis_are_loaded():
    module, other = (pa.nn.TESA(4, alpha=a) for a in (0.5, 0.0))
    other.load_state_dict({n: p.squeeze() if p.shape == (1,) else p for n, p in module.state_dict().items()})
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), module.parameters(), strict=True))


def test_without_a_residual_there_is_no_alpha_and_no_beta():
    module = layer("poly_nl", residual=False)
    x = image("poly_nl")
    assert set(module.state_dict()) == {"w1", "w2", "w3"}
    assert torch.equal(module(x), module.attend(x))
    assert module(x).abs().max() > 0


@pytest.mark.parametrize("spatial", [(7,), (2, 3), (3, 2, 2), (1,), (1, 1), (2, 1, 2, 2)])
def test_one_slot_of_positions_takes_any_number_of_spatial_axes(spatial):
    module = layer("poly_nl", dtype=torch.float64)
    x = torch.randn(2, CHANNELS, *spatial, dtype=torch.float64)
    flat = module(x.flatten(2))
    assert module(x).shape == x.shape
    torch.testing.assert_close(module(x), flat.reshape(x.shape))
    torch.testing.assert_close(module.attend(x), reference(module, x))


def test_one_slot_for_each_spatial_axis_takes_video():
    module = Attention(VIDEO, CHANNELS, sizes={"H": 3}, dtype=torch.float64)
    for spatial in ((2, 3, 4), (5, 3, 2)):
        x = torch.randn(2, CHANNELS, *spatial, dtype=torch.float64)
        torch.testing.assert_close(module.attend(x), reference(module, x))


def test_the_sizes_of_the_input_may_be_numbers():
    module = Attention("x[2,3,C]; y[i,j,b] = x[i,j,d]*w[d,b]", CHANNELS, dtype=torch.float64)
    x = torch.randn(2, CHANNELS, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(module.attend(x), reference(module, x))


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_a_batch_of_one_is_its_sample_and_an_empty_batch_is_empty(name):
    module, x = layer(name), image(name)
    torch.testing.assert_close(module(x)[:1], module(x[:1]))
    empty = module(x[:0].requires_grad_())
    assert empty.shape == (0, *x.shape[1:])
    empty.sum().backward()
    assert all(not p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("name", sorted({*catalog.names("third_order")} - {"ba_transform"}))
def test_a_layer_follows_its_input_from_call_to_call(name):
    module = layer(name, dtype=torch.float64)
    for batch, factor in ((2, 1), (1, 2), (2, 1), (3, 1)):
        x = image(name, batch, dtype=torch.float64).repeat(1, 1, factor, 1)
        torch.testing.assert_close(module.attend(x), reference(module, x))


@pytest.mark.parametrize("name", catalog.names("third_order"))
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_output_has_the_memory_format_of_the_input(name, memory_format):
    x = image(name).contiguous(memory_format=memory_format)
    assert layer(name)(x).is_contiguous(memory_format=memory_format)


def test_channels_last_3d_is_kept():
    x = torch.randn(2, CHANNELS, 2, 3, 2).contiguous(memory_format=torch.channels_last_3d)
    assert layer("e_nl")(x).is_contiguous(memory_format=torch.channels_last_3d)


class Copies(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the copies of tensors of one size."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.copies = numel, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        names = {"clone", "contiguous", "copy_", "_to_copy", "cat", "stack"}
        if function.overloadpacket._qualified_op_name.split("::")[1] in names and result.numel() == self.numel:
            self.copies += 1
        return result


@pytest.mark.parametrize("name", ["poly_nl", "nl", "cgnl", "latent_gnn"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layers_that_need_no_projection_of_it_first_read_their_input_where_it_is(name, memory_format):
    # So large that the plan multiplies the map, or its deviations from the mean, by itself before a weight.
    module, x = layer(name), torch.randn(2, CHANNELS, 64, 64).contiguous(memory_format=memory_format)
    with Copies(x.numel()) as count, torch.no_grad():
        module(x)
    assert count.copies == 0


def test_the_copies_of_the_input_would_be_counted():
    x = torch.randn(2, CHANNELS, 5, 7)
    with Copies(x.numel()) as count:
        x.transpose(1, 2).contiguous()
        x.clone()
    assert count.copies == 2


def test_parameters_may_have_names_that_a_module_uses_itself():
    names = ["alpha", "alpha_", "beta", "forward", "training", "sizes", "spec", "train", "attend", "reset_parameters"]
    factors = " + ".join(f"{name}*x[a,b]" for name in names)
    module = Attention(f"x[N,C]; y[a,b] = {factors}", CHANNELS, dtype=torch.float64)
    assert list(named(module)) == list(module.spec.parameters)
    assert len({id(p) for p in module.parameters()}) == len(names) + 2
    x = torch.randn(1, CHANNELS, 3, dtype=torch.float64)
    torch.testing.assert_close(module.attend(x), len(names) * x)
    assert module.train() is module


def test_its_description_says_the_equation_and_the_sizes():
    module = Attention(LINEAR, 8)
    assert repr(module) == "Attention(y[a,b] = 1/N*x[a,d]*w[d,b]; channels=8, sizes={'C': 8})"


BAD_LAYERS = [
    (
        "x[N,C]; z[N,C]; y[a,b] = x[a,b] + z[a,b]",
        {},
        pa.SpecError,
        "a module has one input; this specification has 2: x, z",
    ),
    (
        "x[N]; y[a] = x[a]",
        {},
        pa.SpecError,
        "a module's input has positions and channels, such as x[N,C]; 'x' has 1 slot",
    ),
    (
        "x[N,C]; y[b,a] = x[a,b]",
        {},
        pa.SpecError,
        "a module's output has the shape of its input: 'x' is [N,C], but 'y' is [C,N]",
    ),
    (
        "x[N,C]; y[b] = x[a,b]",
        {},
        pa.SpecError,
        "a module's output has the shape of its input: 'x' is [N,C], but 'y' is [C]",
    ),
    (
        POSITIONS,
        {},
        pa.SizeError,
        "missing size N (for parameter 'mix'): give sizes={\"N\": ...}. 'mix' is declared nowhere, and a parameter of "
        "its shape serves one number of positions only: if that is meant, say so ('where mix : parameter'); else "
        "define it, or declare it as an input ('mix[N,N]')",
    ),
    (
        catalog.ba_transform(),
        {"H": 2},
        pa.SizeError,
        'missing sizes G, M, K, which no input fixes: give sizes={"G": ..., "M": ..., "K": ...}',
    ),
    (LINEAR, {"C": 5}, pa.SizeError, "C = 5 in sizes contradicts channels=4"),
    (LINEAR, {"Z": 5}, pa.SizeError, "unknown size 'Z'; the sizes are N, C"),
    (LINEAR, {"N": 0}, pa.SizeError, "size N must be a positive whole number, not 0"),
    (
        catalog.ba_transform_block(),
        {"G": 3, "S": 2, "K": 2},
        pa.SizeError,
        "C = 4 is not divisible by 3, which C = G(3)*M needs",
    ),
    ("x[N,3]; y[a,b] = x[a,b]", {}, pa.SizeError, "the specification fixes 3 channels, not 4"),
]


@pytest.mark.parametrize(("spec", "sizes", "kind", "message"), BAD_LAYERS)
def test_what_cannot_be_a_layer_is_refused(spec, sizes, kind, message):
    with pytest.raises(kind) as caught:
        Attention(spec, CHANNELS, sizes=sizes)
    assert str(caught.value) == message


@pytest.mark.parametrize("channels", [0, -1, 2.0, True, "4", None])
def test_channels_are_a_positive_whole_number(channels):
    with pytest.raises(pa.SizeError, match="channels must be a positive whole number, not"):
        Attention(LINEAR, channels)


def test_text_that_is_no_specification_is_refused_with_its_line():
    with pytest.raises(pa.SpecError, match="line 1: x\\[N,C"):
        Attention("x[N,C", CHANNELS)


def test_an_unknown_objective_is_refused():
    with pytest.raises(pa.SizeError, match="unknown objective 'fast'; there are forward, training, as_written"):
        Attention(LINEAR, CHANNELS, objective="fast")(torch.zeros(1, CHANNELS, 2))


BAD_INPUTS = [
    (LINEAR, {}, torch.zeros(2, 4), "the input must have the shape (B, C, ...), not (2, 4)"),
    (LINEAR, {}, torch.zeros(4), "the input must have the shape (B, C, ...), not (4,)"),
    (
        catalog.axial(),
        {"R": 2},
        torch.zeros(2, 4, 3),
        "the input must have the shape (B, C, H, W), not (2, 4, 3)",
    ),
    (
        catalog.axial(),
        {"R": 2},
        torch.zeros(2, 4, 3, 3, 3),
        "the input must have the shape (B, C, H, W), not (2, 4, 3, 3, 3)",
    ),
    (
        LINEAR,
        {},
        torch.zeros(2, 5, 3, 3),
        "the layer has 4 channels, but the input of shape (2, 5, 3, 3) has 5",
    ),
    (
        LINEAR,
        {},
        torch.zeros(2, 4, 3, dtype=torch.long),
        "the input must be of a floating dtype, not torch.int64",
    ),
    (
        LINEAR,
        {},
        torch.zeros(2, 4, 3, dtype=torch.complex64),
        "the input must be of a floating dtype, not torch.complex64",
    ),
    (LINEAR, {}, torch.zeros(2, 4, 0, 3), "the input has no positions: its shape is (2, 4, 0, 3)"),
    (POSITIONS, {"N": 6}, torch.zeros(2, 4, 2, 4), "size N is 6 for this layer, but 8 in the input"),
    (
        catalog.ba_transform(),
        {"H": 2, "W": 3, "G": 2, "K": 2},
        torch.zeros(2, 4, 3, 2),
        "size H is 2 for this layer, but 3 in the input",
    ),
    (
        catalog.ba_transform_block(),
        {"S": 2, "G": 2, "K": 2},
        torch.zeros(2, 4, 2, 3),
        "W = 3 is not divisible by 2, which W = S(2)*V needs",
    ),
    (
        "x[2,3,C]; y[i,j,b] = x[i,j,b]",
        {},
        torch.zeros(2, 4, 2, 4),
        "size 3 is 3 for this layer, but 4 in the input",
    ),
    (
        "x[H,H,C]; y[i,j,b] = x[j,i,b]",
        {},
        torch.zeros(2, 4, 2, 3),
        "size H is 2 for this layer, but 3 in the input",
    ),
]


@pytest.mark.parametrize(("spec", "sizes", "x", "message"), BAD_INPUTS)
def test_a_bad_input_is_refused_every_time(spec, sizes, x, message):
    module = Attention(spec, CHANNELS, sizes=sizes)
    for _ in range(2):
        with pytest.raises(pa.SizeError) as caught:
            module(x)
        assert str(caught.value) == message


def test_orders_are_sought_once_for_the_first_shape_and_once_for_those_around_it(monkeypatch):
    from polyattn.runtime import plan_cache

    made = []
    for name in ("plan", "candidates"):
        function = getattr(plan_cache, name)
        monkeypatch.setattr(
            plan_cache,
            name,
            lambda *a, function=function, name=name, **o: made.append((name, o["batch"])) or function(*a, **o),
        )
    spec = "x[N,C]; y[a,b] = 1/3 * x[a,d]*w[d,b]"
    with torch.no_grad():
        for module in (Attention(spec, CHANNELS), Attention(pa.Spec(spec), CHANNELS)):
            for batch in (1, 2, 1, 2, 3):
                module(torch.zeros(batch, CHANNELS, 11 + batch))
    assert made == [("plan", 1), ("candidates", 2)]


def test_numpy_integers_are_sizes():
    module = Attention(POSITIONS, CHANNELS, sizes={"N": np.int64(6)})
    assert module.mix.shape == (6, 6)
    assert module(torch.zeros(1, CHANNELS, 2, 3)).shape == (1, CHANNELS, 2, 3)


def test_a_parametrized_weight_and_scalar_are_used_as_their_parametrization_makes_them():
    layer, x = Attention("x[N,C]; y[a,b] = x[a,d]*w[d,b]", 3, beta=1.0), torch.randn(2, 3, 5)
    added = layer(x) - x
    for name in ("w", "beta"):
        parametrize.register_parametrization(layer, name, Doubled())
    torch.testing.assert_close(layer(x) - x, 4 * added)
    torch.testing.assert_close(layer.attend(x), 2 * added)


class Doubled(nn.Module):
    def forward(self, value):
        return 2 * value
