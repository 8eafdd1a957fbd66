"""`NonLocal` against its definition written out, its refusals, and when it makes the N x N map."""

import itertools

import pytest
import torch
from torch.nn import functional as F

import polyattn as pa
from polyattn.nn.blocks import non_local
from polyattn.nn.blocks.non_local import SIMILARITIES


def written_out(block, x):
    """The block in double precision, one similarity at a time, with the batch norm of evaluation."""
    block, x = block.double(), x.double()
    conv = (F.conv1d, F.conv2d, F.conv3d)[block.dim - 1]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[block.dim - 1]
    window = ((block.sub_sample,), (block.sub_sample,) * 2, (1, block.sub_sample, block.sub_sample))[block.dim - 1]

    def through(layer, t):
        return t if layer is None else conv(t, layer.weight, layer.bias)

    def fewer(layer):
        if block.sub_sample == 1:
            return through(layer, x)
        return through(layer, pool(x, window)) if block.pool == "before" else pool(through(layer, x), window)

    theta, phi, g = through(block.theta, x).flatten(2), fewer(block.phi).flatten(2), fewer(block.g).flatten(2)
    y = torch.zeros(x.shape[0], block.inner_channels, theta.shape[2], dtype=torch.float64)
    keys, values = phi.shape[1] // block.heads, g.shape[1] // block.heads
    for b, h, a in itertools.product(range(x.shape[0]), range(block.heads), range(theta.shape[2])):
        mine, own = slice(h * keys, (h + 1) * keys), slice(h * values, (h + 1) * values)
        f = torch.stack([_similarity(block, theta[b, mine, a], phi[b, mine, e]) for e in range(phi.shape[2])])
        softmax = block.similarity in ("gaussian", "embedded_gaussian")
        f = (f - f.max()).exp() / (f - f.max()).exp().sum() if softmax else f / phi.shape[2]
        y[b, own, a] = sum(f[e] * g[b, own, e] for e in range(phi.shape[2]))
    z = through(block.out, y.unflatten(2, x.shape[2:]))
    if block.norm is not None:
        shape = (-1, *(1,) * block.dim)
        mean, var, weight, bias = (
            t.view(shape) for t in (block.norm.running_mean, block.norm.running_var, block.norm.weight, block.norm.bias)
        )
        z = (z - mean) / (var + block.norm.eps).sqrt() * weight + bias
    return x + z


def _similarity(block, query, key):
    if block.similarity == "concatenation":
        return (block.concat.weight.flatten() @ torch.cat([query, key])).relu()
    return (query @ key) * (1 if block.similarity == "dot_product" else block.scale)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ({"heads": 2}, (3, 4)),
        ({"heads": 2, "sub_sample": 2, "norm": False}, (5, 4)),
        ({"sub_sample": 2, "pool": "after", "scale": 0.3}, (2, 2, 5)),
        ({"reduction": 1, "bias": False}, (7,)),
    ],
)
def test_it_computes_its_definition(similarity, options, positions):
    if similarity == "concatenation":
        options = options | {"heads": 1}
    block = pa.nn.NonLocal(4, similarity=similarity, zero_init=False, dim=len(positions), **options).eval()
    with torch.no_grad():
        for tensor in (*block.parameters(), *block.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
        x = torch.randn(2, 4, *positions)
        torch.testing.assert_close(block(x).double(), written_out(block, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("similarity", ["embedded_gaussian", "gaussian"])
def test_fused_attention_and_the_small_map_of_training_have_the_same_gradients(similarity, monkeypatch):
    block = pa.nn.NonLocal(16, similarity=similarity, reduction=1, heads=2, scale=0.7, zero_init=False).double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for most in (0, 15 * 15):
        monkeypatch.setattr(non_local, "SMALL_MAP", most)
        y = block.eval()(x)
        assert ("SoftmaxBackward0" in operations_of(y)) == (most > 0)
        results.append((y, *torch.autograd.grad(y.sin().sum(), [x, *block.parameters()], allow_unused=True)))
    torch.testing.assert_close(*results)


def operations_of(y):
    """The names of what autograd has kept of it."""
    found, open_ = set(), [y.grad_fn]
    while open_:
        node = open_.pop()
        if node is not None and node not in found:
            found.add(node)
            open_ += [parent for parent, _ in node.next_functions]
    return {node.name() for node in found}


def test_without_biases_its_dot_product_is_the_efficient_block_of_the_catalogue():
    spec = pa.nn.NonLocal(8, similarity="dot_product", bias=False).spec
    single = str(spec).replace("(j r)", "r").replace("(j s)", "s").replace(",j,", ",").replace("where D = J*R", "")
    lines = [line for line in single.splitlines() if line.strip() and not line.startswith("where j")]
    text = lines[0] + "; where r : R; where s : R\n" + "\n".join(lines[1:])
    efficient = str(pa.catalog.e_nl()).replace("s : V", "s : R")
    assert pa.prove(text, efficient)


@pytest.mark.parametrize("training", [True, False])
def test_the_dot_product_makes_the_similarities_only_where_they_are_cheaper(training):
    block = pa.nn.NonLocal(64, similarity="dot_product")

    def has_a_map(positions):
        sizes = {"B": 2, "N": positions, "C": 64, "D": 32, "J": 1}
        steps = pa.plan(block.spec, sizes, "training" if training else "forward").steps
        return any(step.shape.count(positions) == 2 for step in steps)

    assert has_a_map(5)
    assert not has_a_map(400)


def test_it_starts_as_the_identity_and_can_learn():
    for norm in (True, False):
        block, x = pa.nn.NonLocal(8, norm=norm), torch.randn(2, 8, 3, 5)
        assert torch.equal(block(x), x)
        block(x).square().sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"channels": 9}, "reduction = 2 does not divide the 9 channels"),
        ({"channels": 8, "heads": 3}, "heads = 3 does not divide the 4 inner channels"),
        ({"channels": 8, "inner_channels": 6, "heads": 3, "similarity": "gaussian"}, "heads = 3 does not divide the 8"),
        ({"channels": 8, "similarity": "cosine"}, "similarity must be 'embedded_gaussian' or .* not 'cosine'"),
        ({"channels": 8, "similarity": "concatenation", "heads": 2}, "has one head"),
        ({"channels": 8, "dim": 4}, "dim must be 1 or 2 or 3, not 4"),
        ({"channels": 8, "sub_sample": 0}, "sub_sample must be a positive whole number, not 0"),
        ({"channels": 8, "pool": "beside"}, "pool must be 'before' or 'after', not 'beside'"),
        ({"channels": 0}, "channels must be a positive whole number"),
        ({"channels": 8, "reduction": 0}, "reduction must be a positive whole number"),
    ],
)
def test_words_that_make_no_block_are_refused(words, message):
    with pytest.raises(pa.SizeError, match=message):
        pa.nn.NonLocal(**words)


def test_a_map_smaller_than_the_pooling_window_is_refused():
    with pytest.raises(pa.SizeError, match="sub_sample = 4 positions, but W = 3"):
        pa.nn.NonLocal(4, sub_sample=4)(torch.zeros(1, 4, 5, 3))
