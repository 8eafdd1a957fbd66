"""Every layer in every way in which torch's own modules are used: each cell is one layer used in one way.

A change of the modules inside a layer (hooks, adapters, parametrizations) is held against the same layer with the
weights that the change amounts to; a transform against the plain derivative.
"""

import copy
import pickle
import warnings

import pytest
import torch
from torch import fx, nn
from torch.func import functional_call
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

import polyattn as pa

LAYERS = {
    "A2": lambda: pa.nn.A2(4, 2, zero_init=False),
    "Attention": lambda: pa.nn.Attention(pa.catalog.nl(), 4, beta=1.0),
    "Attention, without residual": lambda: pa.nn.Attention(pa.catalog.nl(), 4, residual=False),
    "Axial": lambda: pa.nn.Axial(4, gamma=0.7),
    "BATBlock": lambda: pa.nn.BATBlock(4, block_size=2, groups=2, dropout=0.0),
    "BATransform": lambda: pa.nn.BATransform(4, block_size=2, groups=2),
    "CGNL": lambda: pa.nn.CGNL(4, 1, 2, zero_init=False),
    "CrissCross": lambda: pa.nn.CrissCross(4, 2, gamma=0.7),
    "EfficientNL": lambda: pa.nn.EfficientNL(4, heads=2),
    "GloRe": lambda: pa.nn.GloRe(4, 1, 3, zero_init=False),
    "LatentGNN": lambda: pa.nn.LatentGNN(4, [3, 2], 2),
    "LatentGNN, symmetric": lambda: pa.nn.LatentGNN(4, [3], 2, mode="symmetric", graph_conv=True),
    "Layer": lambda: pa.nn.Layer("x[A,N,C]; y[a,n,c] = 1/N*x[a,n,d]*w[d,e]*x[a,m,e]*x[a,m,c]", {"C": 6}),
    "NonLocal": lambda: pa.nn.NonLocal(4, zero_init=False),
    "NonLocal, gaussian, sub-sampled": lambda: pa.nn.NonLocal(4, similarity="gaussian", sub_sample=2, zero_init=False),
    "NonLocal, dot product": lambda: pa.nn.NonLocal(4, similarity="dot_product", zero_init=False),
    "NonLocal, concatenation": lambda: pa.nn.NonLocal(4, similarity="concatenation", zero_init=False),
    "PolyNL": lambda: pa.nn.PolyNL(4, beta=0.7),
    "TESA": lambda: pa.nn.TESA(4, alpha=0.5),
}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


def started(layer):
    """The layer in double precision and off the values at which it is the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.7)
        for norm in layer.modules():
            if isinstance(norm, NORMS):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.uniform_(0.5, 1.5)
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.running_mean.uniform_(-0.2, 0.2)
                norm.running_var.uniform_(0.5, 1.5)
    return layer.double()


def convolutions(layer):
    return [(name, m) for name, m in layer.named_modules() if isinstance(m, CONVOLUTIONS)]


def image(*batch, **options):
    torch.manual_seed(0)
    return torch.randn(*(batch or (2,)), 4, 4, 6, dtype=torch.float64, **options)


def gradients(layer, x):
    """The output, and the gradients by the input and by all parameters."""
    x = x.detach().requires_grad_()
    y = layer(x)
    # Not the sum of squares: a norm would make that a constant.
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum()
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    return y.detach(), torch.autograd.grad(loss, wanted, allow_unused=True)


def assert_same(layer, reference):
    """Both compute the same and hand back the same gradient of their input, in training and in evaluation."""
    for training in (True, False):
        y, (dx, *_) = gradients(layer.train(training), image())
        expected, (dx_expected, *_) = gradients(reference.train(training), image())
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(dx, dx_expected)


def doubled(layer):
    """The layer with its convolutions' weights and biases doubled: the reference of what doubles their outputs."""
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        for _, conv in convolutions(reference):
            conv.weight.mul_(2)
            if conv.bias is not None:
                conv.bias.mul_(2)
    return reference


def replaced(layer, name, made):
    parent, _, child = name.rpartition(".")
    layer.get_submodule(parent)._modules[child] = made


class Twice(nn.Module):
    """An adapter: without weights of its own, and without the attributes of the convolution that it replaces."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x) + self.base(x)


class LowRank(nn.Module):
    """LoRA around a convolution."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        kind, size = type(base), base.kernel_size
        torch.manual_seed(2)
        self.down = kind(base.in_channels, 1, size, bias=False).double()
        self.up = kind(1, base.out_channels, 1, bias=False).double()

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Int8(nn.Module):
    """Weight-only quantisation: integers and a scale instead of `weight`."""

    def __init__(self, conv):
        super().__init__()
        scale = conv.weight.detach().abs().amax() / 127
        self.register_buffer("integers", (conv.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.held = [conv]

    def restored(self):
        return self.integers * self.scale

    def forward(self, x):
        return self.held[0]._conv_forward(x, self.restored(), self.held[0].bias)


def forward_hooks(layer):
    reference = doubled(layer)
    for _, conv in convolutions(layer):
        conv.register_forward_hook(lambda module, _, y: 2 * y)
    assert_same(layer, reference)


def forward_pre_hooks(layer):
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        for _, conv in convolutions(reference):
            conv.weight.mul_(0.5)
    for _, conv in convolutions(layer):
        conv.register_forward_pre_hook(lambda module, inputs: (0.5 * inputs[0],))
    assert_same(layer, reference)


def every_module_is_called(layer):
    parts = {name: m for name, m in layer.named_modules() if name and not isinstance(m, nn.ModuleList | nn.ModuleDict)}
    called = set()
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    layer(image())
    assert called == set(parts)


def full_backward_hooks(layer):
    reference, seen = copy.deepcopy(layer), set()
    for name, part in layer.named_modules():
        part.register_full_backward_hook(lambda *_, name=name: seen.add(name))
        part.register_full_backward_pre_hook(lambda *_: None)
    assert_same(layer, reference)
    assert seen >= {name for name, _ in convolutions(layer)}


def hooks_of_all_modules(layer):
    reference = doubled(layer)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _, y: 2 * y if isinstance(module, CONVOLUTIONS) else None
    )
    try:
        y = layer.eval()(image())
    finally:
        handle.remove()
    torch.testing.assert_close(y, reference.eval()(image()))


def old_style(norm, layer):
    reference = copy.deepcopy(layer)
    for _, conv in convolutions(layer):
        norm(conv)
    layer.eval()(image())  # in training, power iterations would go on
    for name, conv in convolutions(layer):
        with torch.no_grad():
            reference.get_submodule(name).weight.copy_(conv.weight)
    reference.eval()
    torch.testing.assert_close(layer(image()), reference(image()))
    layer.train()(image()).square().sum().backward()
    assert all(p.grad is not None for name, p in layer.named_parameters() if name.endswith(("_orig", "_v")))


def parametrized(layer):
    class Half(nn.Module):
        def forward(self, weight):
            return 0.5 * weight

    reference = copy.deepcopy(layer)
    with torch.no_grad():
        for module in (reference, *(m for _, m in convolutions(reference))):
            for name in [n for n, p in module.named_parameters(recurse=False) if p.dim() > 1]:
                module.get_parameter(name).mul_(0.5)
    for module in (layer, *(m for _, m in convolutions(layer))):
        for name in [n for n, p in module.named_parameters(recurse=False) if p.dim() > 1]:
            parametrize.register_parametrization(module, name, Half())
    assert_same(layer, reference)


def pruned(layer):
    reference = copy.deepcopy(layer)
    for owner, module in [("", layer), *convolutions(layer)]:
        for name in [n for n, p in module.named_parameters(recurse=False) if p.dim() > 1]:
            prune.l1_unstructured(module, name, 0.5)
            with torch.no_grad():
                reference.get_submodule(owner).get_parameter(name).copy_(getattr(module, name))
    assert_same(layer, reference)


def adapters(layer):
    reference = doubled(layer)
    for name, conv in convolutions(layer):
        replaced(layer, name, Twice(conv))
    assert_same(layer, reference)


def low_rank(layer):
    reference = copy.deepcopy(layer)
    # Of a grouped convolution, the sum with a dense one is no grouped convolution.
    for name, conv in [(n, c) for n, c in convolutions(layer) if c.groups == 1]:
        made = LowRank(conv)
        replaced(layer, name, made)
        with torch.no_grad():
            more = made.up.weight.flatten(1) @ made.down.weight.flatten(1)
            reference.get_submodule(name).weight.add_(more.view_as(conv.weight))
    assert_same(layer, reference)
    layer(image()).square().sum().backward()
    assert all(p.grad is not None for n, p in layer.named_parameters() if ".up." in n or ".down." in n)


def quantised(layer):
    reference = copy.deepcopy(layer)
    for name, conv in convolutions(layer):
        made = Int8(conv)
        replaced(layer, name, made)
        with torch.no_grad():
            reference.get_submodule(name).weight.copy_(made.restored())
    assert_same(layer, reference)


def subclasses(layer):
    reference = doubled(layer)
    for _, conv in convolutions(layer):
        kind = type(conv)
        conv.__class__ = type("Own", (kind,), {"forward": lambda self, x, kind=kind: 2 * kind.forward(self, x)})
    assert_same(layer, reference)


def forwards_of_instances(layer):
    reference = doubled(layer)
    for _, conv in convolutions(layer):
        conv.forward = lambda x, forward=conv.forward: 2 * forward(x)
    assert_same(layer, reference)


def norms_replaced(layer):
    reference = copy.deepcopy(layer)
    for name, norm in [(n, m) for n, m in layer.named_modules() if isinstance(m, NORMS)]:
        replaced(layer, name, nn.Sequential(norm, nn.Identity()))
    assert_same(layer, reference)


def norms_without_affine(layer):
    reference = copy.deepcopy(layer)
    for name, norm in [(n, m) for n, m in layer.named_modules() if isinstance(m, NORMS)]:
        own = reference.get_submodule(name)
        nn.init.ones_(own.weight)
        nn.init.zeros_(own.bias)
        norm.weight = norm.bias = None
        norm.affine = False
    assert_same(layer, reference)
    layer.float()
    x = image().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).isfinite().all()


def relu_in_place_behind(layer):
    network = nn.Sequential(nn.Conv2d(4, 4, 1).double(), nn.ReLU(inplace=True), layer, nn.ReLU(inplace=True))
    reference = nn.Sequential(network[0], nn.ReLU(), copy.deepcopy(layer), nn.ReLU())
    assert_same(network, reference)


def vmap(layer):
    layer.eval()
    x = image(3, 2)
    torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(z) for z in x]))


def per_sample_gradients(layer):
    layer.eval()
    named = dict(layer.named_parameters())

    def loss(parameters, z):
        return functional_call(layer, parameters, (z[None],)).sin().sum()

    found = torch.vmap(torch.func.grad(loss), (None, 0))(named, image())
    for k, z in enumerate(image()):
        one = torch.autograd.grad(loss(named, z), list(named.values()), allow_unused=True)
        for (name, parameter), gradient in zip(named.items(), one, strict=True):
            expected = torch.zeros_like(parameter) if gradient is None else gradient
            torch.testing.assert_close(found[name][k], expected)


def jacobian_of(layer):
    """Function of a few numbers: the input is theirs, and so is the output; and its Jacobian by plain autograd."""
    layer.eval()
    base, along = image(), torch.randn(3, 4, 4, 6, dtype=torch.float64)

    def function(t):
        return layer(base + (t[:, None, None, None] * along).sum(0, keepdim=True)).flatten()[::7]

    t = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    return function, t, torch.autograd.functional.jacobian(function, t)


def jvp(layer):
    function, t, expected = jacobian_of(layer)
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(torch.func.jvp(function, (t,), (v,))[1], expected @ v)


def jacfwd(layer):
    function, t, expected = jacobian_of(layer)
    torch.testing.assert_close(torch.func.jacfwd(function)(t), expected)


def vectorized_jacobian(layer):
    function, t, expected = jacobian_of(layer)
    torch.testing.assert_close(torch.autograd.functional.jacobian(function, t, vectorize=True), expected)
    if getattr(layer, "sub_sample", 1) == 1:  # torch's own max pooling fails there
        found = torch.autograd.functional.jacobian(function, t, vectorize=True, strategy="forward-mode")
        torch.testing.assert_close(found, expected)


def hessian(layer):
    function, t, _ = jacobian_of(layer)
    found = torch.func.hessian(lambda s: function(s).sin().sum())(t)
    step, slope = 1e-5, torch.func.grad(lambda s: function(s).sin().sum())
    expected = [(slope(t + step * v) - slope(t - step * v)) / (2 * step) for v in torch.eye(3, dtype=t.dtype)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-6)


def batched_gradients(layer):
    x = image(requires_grad=True)
    y = layer.train()(x)
    seeds = torch.randn(3, *y.shape, dtype=y.dtype)
    (found,) = torch.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)
    expected = torch.stack([torch.autograd.grad(y, x, seed, retain_graph=True)[0] for seed in seeds])
    torch.testing.assert_close(found, expected)


def meta_tensors(layer):
    layer.to("meta")
    for training in (True, False):
        assert layer.train(training)(image().to("meta")).shape == image().shape


def checkpointed(layer):
    layer.eval()
    x = image(requires_grad=True)
    expected, (dx, *_) = gradients(layer, x)
    for reentrant in (True, False):
        again = x.detach().requires_grad_()
        y = torch.utils.checkpoint.checkpoint(layer, again, use_reentrant=reentrant)
        (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(again.grad, dx)


def copied_and_pickled(layer):
    for _, conv in convolutions(layer):
        conv.register_forward_hook(twice)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert_same(twin, layer)


def twice(module, _, y):
    return 2 * y


def traced_by_fx(layer):
    roots = [] if isinstance(layer, pa.nn.Layer) and type(layer) is pa.nn.Layer else [layer]
    for network in (*roots, nn.Sequential(nn.Conv2d(4, 4, 1).double(), layer)):
        traced = fx.symbolic_trace(network)
        assert [n.op for n in traced.graph.nodes].count("call_module") == (1 if network is layer else 2)
        assert_same(traced, network)


def feature_extractor(layer):
    network = nn.Sequential(nn.Conv2d(4, 4, 1).double(), layer).eval()
    torch.testing.assert_close(create_feature_extractor(network, ["1"])(image())["1"], network(image()))


def counted(layer):
    """Torch's counter sees the same arithmetic whether or not it watches the modules."""
    layer.eval()
    with FlopCounterMode(display=False) as counter:
        layer(image())
    # The hooks make the layer call its modules, as plain torch would.
    for _, conv in convolutions(layer):
        conv.register_forward_hook(lambda *_: None)
    with FlopCounterMode(display=False) as called:
        layer(image())
    assert 0 < counter.get_total_flops() <= called.get_total_flops()


def refused_by_torchscript(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        with pytest.raises(pa.PolyattnError, match=rf"{type(layer).__name__}.*torch\.export"):
            torch.jit.script(nn.Sequential(layer))


WAYS = [
    adapters,
    batched_gradients,
    checkpointed,
    copied_and_pickled,
    counted,
    every_module_is_called,
    feature_extractor,
    forward_hooks,
    forward_pre_hooks,
    forwards_of_instances,
    full_backward_hooks,
    hessian,
    hooks_of_all_modules,
    jacfwd,
    jvp,
    low_rank,
    meta_tensors,
    norms_replaced,
    norms_without_affine,
    parametrized,
    per_sample_gradients,
    pruned,
    quantised,
    refused_by_torchscript,
    relu_in_place_behind,
    subclasses,
    traced_by_fx,
    vectorized_jacobian,
    vmap,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_the_layer_is_used_in_this_way(make, way):
    way(started(make()))


@pytest.mark.parametrize("norm", [spectral_norm, weight_norm], ids=["spectral_norm", "weight_norm"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_style_norms_of_weights_train_them(make, norm):
    old_style(norm, started(make()))
