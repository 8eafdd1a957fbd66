"""Functions as factors against torch: values, gradients and second gradients, as planned and as written."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from polyattn import Spec, lower, plan
from polyattn.errors import PolyattnError
from polyattn.lowering import training_function
from polyattn.planning.recognise import stable

ENTRYWISE = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "elu": F.elu,
    "sin": torch.sin,
    "cos": torch.cos,
}
ALONG = {
    "softmax": lambda s: s.softmax(-1),
    "normalize": lambda s: F.normalize(s, 1, -1),
}
REDUCING = {
    "sum": lambda s: s.sum(-1),
    "mean": lambda s: s.mean(-1),
    "max": lambda s: s.amax(-1),
    "min": lambda s: s.amin(-1),
    "logsumexp": lambda s: s.logsumexp(-1),
}
CASES: dict[str, tuple[str, object]] = {}
for name, f in ENTRYWISE.items():
    CASES[name] = (f"x[N,C]; y[a,b] = {name}(x[a,c]*w[c,b])", lambda x, w, f=f: f(x @ w))
    CASES[f"{name} as a factor"] = (
        f"x[N,C]; y[a,b] = x[a,b]*{name}(x[a,c]*w[c,b])/(1 + x[a,d]*x[a,d])",
        lambda x, w, f=f: x * f(x @ w) / (1 + (x * x).sum(-1, keepdim=True)),
    )
for name, f in ALONG.items():
    CASES[f"{name} as a factor"] = (
        f"x[N,C]; y[a,b] = 2*{name}[e](x[a,c]*w[c,d]*x[e,d])*x[e,b]",
        lambda x, w, f=f: 2 * f(x @ w @ x.mT) @ x,
    )
for name, f in REDUCING.items():
    CASES[f"{name} as a factor"] = (
        f"x[N,C]; y[a,b] = {name}[e](x[a,c]*w[c,d]*x[e,d])*x[a,b]",
        lambda x, w, f=f: f(x @ w @ x.mT)[..., None] * x,
    )
CASES["rms norm"] = (
    "x[N,C]; y[a,b] = x[a,c]*w[c,b] / sqrt(1/C*x[a,d]*x[a,d] + 1e-6)",
    lambda x, w: (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()) @ w,
)
CASES["attention by hand"] = (
    "x[N,C]; z[a] = sum[e](exp(1/sqrt(C)*x[a,c]*w[c,d]*x[e,d]))\n"
    "y[a,b] = exp(1/sqrt(C)*x[a,c]*w[c,d]*x[e,d])*x[e,b]/z[a]",
    lambda x, w: ((x @ w @ x.mT) / 3**0.5).softmax(-1) @ x,
)


def tensors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.rand(s, dtype=torch.float64, generator=generator) + 0.2 for s in ((2, 5, 3), (3, 3)))
    return x.requires_grad_(), w.requires_grad_()


@pytest.mark.parametrize("case", CASES)
def test_values_are_torchs(case: str):
    text, reference = CASES[case]
    spec, (x, w) = Spec(text), tensors()
    wanted = reference(x, w)
    for objective in ("forward", "training", "as_written"):
        graph = lower(plan(spec, {"N": 5, "C": 3, "B": 2}, objective))
        torch.testing.assert_close(graph(x, w=w), wanted)
    found = spec.evaluate({"x": x[0].detach().numpy(), "w": w.detach().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted[0].detach())


@pytest.mark.parametrize("case", CASES)
def test_planned_gradients_and_second_gradients_are_autograds(case: str):
    text, reference = CASES[case]
    x, w = tensors()
    planned = training_function(plan(Spec(text), {"N": 5, "C": 3, "B": 2}, "training"))
    found, wanted = (
        torch.autograd.grad(f(x, w).square().sum(), (x, w), create_graph=True) for f in (planned, reference)
    )
    torch.testing.assert_close(found, wanted)
    second = [torch.autograd.grad(sum(g.square().sum() for g in first), (x, w)) for first in (found, wanted)]
    torch.testing.assert_close(*second)


OWN = Spec("x[N,C]; where phi : function; y[a,b] = phi(x[a,c]*w[c,b])*x[a,b]")


@pytest.mark.parametrize("objective", ["forward", "training"])
def test_a_function_of_the_users_own_is_given_at_lowering(objective: str):
    x, w = tensors()
    for function in (torch.sin, lambda t: t**3):
        graph = lower(plan(OWN, {"N": 5, "C": 3}, objective), functions={"phi": function})
        torch.testing.assert_close(graph(x, w=w), function(x @ w) * x)
        found = OWN.evaluate({"x": x[0].detach().numpy(), "w": w.detach().numpy()}, functions={"phi": lambda t: t**3})
    torch.testing.assert_close(torch.from_numpy(found), ((x[0] @ w) ** 3 * x[0]).detach())


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (None, "`functions` lacks 'phi'"),
        ({"phi": torch.sin, "psi": torch.sin}, "`functions` has 'psi', but the specification declares phi"),
        ({"phi": 3}, "`functions\\['phi'\\]` is 3, not callable"),
    ],
)
def test_functions_that_do_not_fit_are_named(functions, message: str):
    with pytest.raises(PolyattnError, match=message):
        lower(plan(OWN, {"N": 5, "C": 3}), functions=functions)


def test_a_function_that_changes_the_shape_is_named():
    graph = lower(plan(OWN, {"N": 5, "C": 3}), functions={"phi": lambda t: t.sum(-1)})
    with pytest.raises(PolyattnError, match="keep the shape"):
        graph(*tensors())


def test_a_graph_whose_output_is_kept_for_the_backward_pass_has_gradients():
    x, w = tensors()
    function = training_function(plan(Spec("x[N,C]; y[a,b] = sigmoid(x[a,c]*w[c,b])"), {"N": 5, "C": 3}, "training"))
    found, wanted = (torch.autograd.grad(f(x, w).sum(), (x, w)) for f in (function, lambda x, w: (x @ w).sigmoid()))
    torch.testing.assert_close(found, wanted)


def tensors_of(spec: Spec, **given: Tensor) -> dict:
    return {name: given[name].detach().numpy() for name in (*spec.inputs, *spec.parameters)}


@pytest.mark.parametrize("case", CASES)
def test_the_derivative_in_the_language_is_autograds(case: str):
    text, reference = CASES[case]
    (x, w), seed = tensors(), torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad((reference(x[:1], w)[0] * seed).sum(), (x, w))
    for name, gradient in zip("xw", (wanted[0][0], wanted[1]), strict=True):
        derivative = Spec(text).derivative(name)
        found = derivative.evaluate(tensors_of(derivative, x=x[0], w=w, dy=seed))
        torch.testing.assert_close(torch.from_numpy(found), gradient)
        assert Spec(str(derivative)) == derivative


@pytest.mark.parametrize("case", ["silu", "gelu", "gelu_tanh", "sqrt", "tanh as a factor", "softmax as a factor"])
def test_the_second_derivative_in_the_language_is_autograds(case: str):
    text, reference = CASES[case]
    generator = torch.Generator().manual_seed(2)
    (x, w), *seeds = tensors(), *(torch.rand(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    (first,) = torch.autograd.grad((reference(x[:1], w)[0] * seeds[0]).sum(), x, create_graph=True)
    (wanted,) = torch.autograd.grad((first[0] * seeds[1]).sum(), w)
    derivative = Spec(text).derivative("x").derivative("w", "du")
    found = derivative.evaluate(tensors_of(derivative, x=x[0], w=w, dy=seeds[0], du=seeds[1]))
    torch.testing.assert_close(torch.from_numpy(found), wanted)


def test_a_function_of_the_users_own_has_no_derivative_in_the_language():
    with pytest.raises(PolyattnError, match="inside 'phi', which is opaque"):
        OWN.derivative("w")


SPELLINGS = {
    "a normaliser of its own": "z[a] = sum[e](exp(1/sqrt(D)*q[a,r]*k[e,r]))\n"
    "y[a,b] = exp(1/sqrt(D)*q[a,r]*k[e,r])*v[e,b]/z[a]",
    "one line": "y[a,b] = exp(1/sqrt(D)*q[a,r]*k[e,r])*v[e,b]/sum[f](exp(1/sqrt(D)*q[a,s]*k[f,s]))",
    "numerator and denominator": "s[a,e] = 1/sqrt(D)*q[a,r]*k[e,r]; p[a,e] = exp(s[a,e]); n[a,b] = p[a,e]*v[e,b]\n"
    "z[a] = sum[e](p[a,e]); y[a,b] = n[a,b]/z[a]",
    "scale in the query": "t[a,r] = q[a,r]/sqrt(D); y[a,b] = exp(t[a,r]*k[e,r])*v[e,b]/sum[f](exp(t[a,s]*k[f,s]))",
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("scale", [1, 100])
def test_exponentials_with_their_normaliser_do_not_overflow(text: str, scale: int):
    spec = Spec("q[N,D]; k[N,D]; v[N,C]\n" + text)
    generator = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 2, 7, 4, generator=generator)
    for objective in ("forward", "training"):
        found = lower(plan(spec, {"N": 7, "D": 4, "C": 4, "B": 2}, objective))(scale * q, k * scale, v)
        torch.testing.assert_close(found, F.scaled_dot_product_attention(scale * q, k * scale, v), rtol=1e-3, atol=1e-3)


def test_an_exponential_with_another_normaliser_stays():
    spec = Spec("q[N,D]; k[N,D]; v[N,C]\ny[a,b] = exp(q[a,r]*k[e,r])*v[e,b]/sum[f](exp(k[a,s]*k[f,s]))")
    assert stable(spec) is spec
    spec = Spec("q[N,D]; k[N,D]; v[N,C]\ny[a,b] = exp(q[a,r]*k[e,r])*v[e,b]/sum[f](exp(q[a,s]*k[f,s]) + 1)")
    assert stable(spec) is spec


def test_a_logarithm_of_a_sum_of_exponentials_does_not_overflow():
    x = torch.tensor([[[900.0, 899.0], [-900.0, -901.0]]])
    spec = Spec("x[N,C]; y[a] = log(sum[c](exp(x[a,c])))")
    torch.testing.assert_close(lower(plan(spec, {"N": 2, "C": 2}))(x), x.logsumexp(-1))


def test_roots_of_sizes_are_read_from_shapes_too():
    spec = Spec("x[N,C]; y[a,b] = 1/sqrt(N)*exp(x[a,b])*x[e,b]/sqrt(C)")
    graph = lower(plan(spec, {"N": 1, "C": 3}), dynamic=["N"])
    for n in (1, 2, 9):
        x = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        torch.testing.assert_close(graph(x), x.exp() * x.sum(1, keepdim=True) / (3 * n) ** 0.5)
