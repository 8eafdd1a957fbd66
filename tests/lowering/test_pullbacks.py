"""Facts of backward passes through functions: their derivatives, what they keep, and where they are left to kernels."""

import pytest
import torch
from torch.func import grad, vmap

from polyattn import Spec, catalog, lower, plan
from polyattn.language.functions import ARGUMENT, reads
from polyattn.lowering import training, training_function
from polyattn.lowering.pullbacks import PULLBACKS
from polyattn.planning import DEVICES, Apply, Pullback, question
from polyattn.planning.search import keeping_little
from polyattn.study.counts import counts, value

EVERY = Spec("""
    x[H,W,C]; where r : R
    gate[i,r] = sigmoid(1/W*x[i,j,c]*w[c,r])
    share[i,r] = normalize[i](gate[i,r] - 0.5)
    part[j,c] = relu(x[i,j,c]*share[i,r]*v[r])
    top[c] = max[j](part[j,c])
    both[i,j,c] = softmax[i,j](x[i,j,c])
    own[r] = softmax[r](v[r])
    y[i,j,c] = both[i,j,c]*top[c] + share[i,r]*own[r]*x[i,j,c] + shift[i,j]*part[j,c]
""")
"""Every function of the language, of the input, of parameters, over one axis and over two."""
NL = Spec("""
    x[N,C]; where r : R
    share[a,e] = softmax[e](x[a,d]*wq[d,r]*x[e,f]*wk[f,r])
    y[a,b] = share[a,e]*x[e,h]*wg[h,b]
""")
E_NL = catalog.e_nl(softmax=True)
CASES = [
    (EVERY, {"H": 2, "W": 3, "C": 4, "R": 2}),
    (NL, {"N": 6, "C": 4, "R": 2}),
    (E_NL, {"N": 6, "C": 4, "R": 2, "V": 3}),
]


def tensors(made):
    spec, generator = made.spec, torch.Generator().manual_seed(3)
    lead = dict.fromkeys(spec.inputs, (made.batch,))
    shapes = [
        lead.get(t, ()) + tuple(made.sizes[spec.sizes.name(s)] for s in spec.shape(t))
        for t in (*spec.inputs, *spec.parameters)
    ]
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


FUNCTIONS = {
    "softmax": lambda x, axes: torch.exp(x) / torch.exp(x).sum(axes, keepdim=True),
    "normalize": lambda x, axes: x / x.abs().sum(axes, keepdim=True).clamp_min(1e-12),
    "max": lambda x, axes: x.amax(axes, keepdim=True),
    "relu": lambda x, axes: x.relu(),
    "sigmoid": lambda x, axes: 1 / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("axes", [(1,), (2,), (0, 2)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_pullback_is_the_gradient_of_its_function_also_at_zeros_and_ties(name: str, axes: tuple[int, ...]):
    x = torch.randint(-2, 3, (3, 4, 5), generator=torch.Generator().manual_seed(0)).double()
    x[1, 2] = 0
    x[1, :, 3] = 0
    x[0, :, 0] = x[2, :, 0] = 0
    x.requires_grad_()
    y = FUNCTIONS[name](x, axes)
    seed = torch.randn_like(y[:, :, :1] if name == "relu" else y)
    read = x if reads(name) == ARGUMENT else y
    given = (seed, read) if name in ("relu", "sigmoid") else (seed, read, axes)
    (wanted,) = torch.autograd.grad(y, x, seed.expand_as(y))
    torch.testing.assert_close(PULLBACKS[name](*given), wanted)


def test_a_norm_below_the_least_is_a_constant():
    x = torch.tensor([1e-14, -2e-14], dtype=torch.float64, requires_grad=True)
    seed = torch.tensor([2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(PULLBACKS["normalize"](seed, x, (0,)), seed / 1e-12)


@pytest.mark.parametrize(("spec", "sizes"), CASES)
@pytest.mark.parametrize("cost", ["roofline", "macs"])
def test_a_specification_with_functions_has_first_and_second_derivatives(spec, sizes, cost):
    made = plan(spec, {**sizes, "B": 2}, "training", cost=cost)
    assert any(isinstance(n, Pullback) for n in made.backward.graph.nodes)
    function, written, given = training_function(made), lower(plan(spec, sizes, "as_written", batch=2)), tensors(made)
    y, wanted = function(*given), written(*given)
    torch.testing.assert_close(y, wanted)
    seed = torch.randn_like(y)
    torch.testing.assert_close(torch.autograd.grad(y, given, seed), torch.autograd.grad(wanted, given, seed))
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


@pytest.mark.parametrize(("spec", "sizes"), CASES)
def test_gradients_of_single_samples_by_vmap(spec, sizes):
    made = plan(spec, {**sizes, "B": 2}, "training")
    function, (x, *parameters) = training_function(made), tensors(made)
    each = vmap(grad(lambda z: function(z[None], *parameters).sin().sum()))(x)
    torch.testing.assert_close(each, grad(lambda z: function(z, *parameters).sin().sum())(x))


@pytest.mark.parametrize(("spec", "sizes"), CASES)
def test_with_functions_too_no_training_plan_takes_or_keeps_more_than_autograd_of_the_authors_order(spec, sizes):
    sizes = {name: 16 * number for name, number in sizes.items()}
    made, written = plan(spec, sizes, "training"), plan(spec, sizes, "as_written")
    assert made.training_macs <= written.training_macs
    assert made.kept_bytes <= 4 * value(counts(written, "training").kept, written.graph.known)


def test_nl_keeps_the_shares_and_nothing_else_of_their_size():
    made = plan(NL, {"N": 512, "C": 64, "R": 32}, "training")
    large = [k for k in made.backward.kept if made.graph.bytes_of(k) >= 4 * 512 * 512]
    assert [made.nodes[k].function for k in large] == ["softmax"]


def test_under_a_memory_limit_the_shares_are_made_again():
    sizes = {"N": 512, "C": 64, "R": 32}
    free = plan(NL, sizes, "training", kernels="off")
    limit = 4 * 512 * 512
    assert free.kept_bytes > limit
    tight = keeping_little(free, 0, question(NL, sizes, "training", memory_limit=limit))
    assert tight.kept_bytes <= limit
    assert any(isinstance(n, Apply) and n.function == "softmax" for n in tight.backward.graph.nodes)


def test_the_maximum_is_among_the_entries_also_where_its_argument_is_made_again():
    spec = Spec("x[N,C]; t[a,b] = x[a,d]*w[d,b]; m[b] = max[a](t[a,b]); y[a,b] = m[b]*x[a,b]")
    sizes = {"N": 64, "C": 8}
    asked = question(spec, sizes, "training", memory_limit=4 * 64)
    made = keeping_little(plan(spec, sizes, "training"), 0, asked)
    assert all(made.graph.bytes_of(k) <= 4 * 64 for k in made.backward.kept)
    given = [t.detach().float().requires_grad_() for t in tensors(made)]
    got = torch.autograd.grad(training_function(made)(*given).sum(), given)
    torch.testing.assert_close(got, torch.autograd.grad(lower(made)(*given).sum(), given))


def test_where_a_fused_kernel_makes_the_softmax_its_own_backward_pass_is_taken():
    made = plan(E_NL, {"N": 16384, "C": 64, "R": 16, "V": 16, "B": 8}, "training")
    assert not training.kernels_differentiate(made, ())
    assert training.kernels_differentiate(made, ("linear_context", "linear_query"))


def test_softmax_is_left_to_autograd_where_neither_arithmetic_nor_memory_is_won():
    made = plan(NL, {"N": 1024, "C": 64, "R": 32}, "training", kernels="off")
    assert made.backward_macs == 2 * made.macs
    assert not training.backward_pays(made, DEVICES["cpu"])
