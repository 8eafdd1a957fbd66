"""Facts of lowered graphs: they compute the specification, forward and backward, whatever its names."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn import SizeError, Spec, catalog, lower, plan
from polyattn.language import value_of
from polyattn.lowering import lower_backward, training_function
from polyattn.testing import size_assignments, specification_texts
from tests.drawing import share

OPERATIONS = {
    "matmul", "baddbmm", "mul", "add", "sub", "neg", "abs", "div", "softmax", "relu", "sigmoid", "diagonal", "eye",
}  # fmt: skip


def arguments(spec: Spec, sizes: dict[str, int], batch: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(name: str, lead: tuple[int, ...]) -> torch.Tensor:
        shape = lead + tuple(value_of(atoms, sizes) for atoms in spec.shape(name))
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    return [random(n, (batch,)) for n in spec.inputs] + [random(n, ()) for n in spec.parameters]


def reference(spec: Spec, sizes: dict[str, int], tensors: list[torch.Tensor], batch: int) -> np.ndarray:
    arrays = dict(zip((*spec.inputs, *spec.parameters), (t.detach().numpy() for t in tensors), strict=True))
    rows = [{n: a[b] if n in spec.inputs else a for n, a in arrays.items()} for b in range(batch)]
    return np.stack([spec.evaluate(row, sizes) for row in rows])


@share(1.2)
@given(st.data())
def test_generated_specifications_compute_what_numpy_says(data: st.DataObject):
    spec = Spec(data.draw(specification_texts()))
    sizes = data.draw(size_assignments(spec))
    for objective in ("as_written", "forward"):
        made = plan(spec, sizes, objective, batch=2)
        tensors = arguments(spec, made.sizes, 2)
        expected = reference(spec, made.sizes, tensors, 2)
        found = lower(made)(*tensors).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(expected).max()))


FORMS = {
    "terms of either sign, with numbers": "y[a,b] = x[a,b] - x[a,d]*w[d,b] + 3*v[b] - 1/2*x[a,d]*x[e,d]*x[e,b]",
    "a mean in a product": "g[d,f] = 1/N*x[e,d]*x[e,f]; y[a,b] = x[a,d]*g[d,b] + 2*x[a,b]",
    "a product with a number added to a map": "s[a,e] = x[a,d]*x[e,d]; y[a,b] = x[a,b] + 1/N*s[a,e]*x[e,b]",
    "two products of maps": "s[a,e] = x[a,d]*x[e,d]; y[a,b] = s[a,e]*x[e,b] + s[e,a]*u[d]*x[e,d]*x[e,b]",
    "a sum of two products of maps": "g[c,d] = x[e,c]*x[e,d]; y[a,b] = x[a,d]*g[d,b] + x[a,d]*g[b,c]*w[c,d]",
    "a mean of what does not change along it": "y[a,b] = mean[e](x[a,b] + x[e,b]*v[b])",
    "a mean of one factor": "y[a,b] = 1/N*x[a,d]*x[e,b]*v[d]",
    "a factor at two places": "where a, b : N; y[a,b] = x[a,d]*u[d,a,b] + x[b,d]*w[d,a,b]",
    "a gradient that is constant along an index": "z[a,b] = x[a,b] + w[b]; y[b] = z[e,b]*v[b]",
    "a number beside the smaller factor": "y[a,b] = 2*x[a,d]*w[d,b]",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_and_their_gradients_are_what_numpy_says(text: str):
    """Gradients along a random direction, against central differences of the reference evaluation."""
    spec = Spec(f"x[N,C]; {text}")
    sizes = {"N": 7, "C": 2}  # small enough that shared factors pay
    for objective in ("as_written", "forward", "training"):
        made = plan(spec, sizes, objective, batch=2)
        tensors = arguments(spec, made.sizes, 2)
        function = training_function(made) if objective == "training" else lower(made)
        y = function(*tensors)
        np.testing.assert_allclose(y.detach().numpy(), reference(spec, made.sizes, tensors, 2), rtol=1e-10, atol=1e-10)
        generator = torch.Generator().manual_seed(1)
        seed, *steps = (torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in (y, *tensors))
        y.backward(seed)
        for tensor, step in zip(tensors, steps, strict=True):  # one after the other, so that no error hides another
            ends = [[t + sign * step if t is tensor else t for t in tensors] for sign in (1e-5, -1e-5)]
            up, down = (reference(spec, made.sizes, end, 2) for end in ends)
            along = ((up - down) / 2e-5 * seed.numpy()).sum()
            assert (tensor.grad * step).sum().item() == pytest.approx(along, rel=1e-6, abs=1e-6)


def test_a_norm_of_zero_leaves_zeros():
    made = plan(Spec("x[N,C]; r[a,b] = relu(x[a,b]); y[a,b] = normalize[a](r[a,b])"), {"N": 3, "C": 2})
    assert torch.equal(lower(made)(-torch.ones(1, 3, 2)), torch.zeros(1, 3, 2))


@share(1.2)
@given(st.data())
def test_the_planned_backward_pass_is_the_derivative(data: st.DataObject):
    spec = Spec(data.draw(specification_texts(functions=False)))
    sizes = data.draw(size_assignments(spec))
    made, written = plan(spec, sizes, "training", batch=2), plan(spec, sizes, "as_written", batch=2)
    tensors = arguments(spec, made.sizes, 2)
    planned, plain = training_function(made)(*tensors), lower(written)(*tensors)
    seed = torch.randn(plain.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if plain.requires_grad:
        ours = torch.autograd.grad(planned, tensors, seed, allow_unused=True, materialize_grads=True)
        theirs = torch.autograd.grad(plain, tensors, seed, allow_unused=True, materialize_grads=True)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["nl", "poly_nl", "e_nl", "tesa", "latent_gnn"])
def test_double_backward_goes_through_the_kept_values(name: str):
    spec = catalog.get(name)
    sizes = {n: v for n, v in {"N": 5, "C": 3, "R": 2, "V": 2, "H": 2, "W": 3}.items() if n in spec.sizes.names}
    made = plan(spec, sizes, "training", batch=2)
    assert torch.autograd.gradgradcheck(training_function(made), arguments(spec, sizes, 2), fast_mode=True)


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("channels", [2, 24])
def test_nested_shared_factors_keep_their_indices_apart(batch: int, channels: int):
    spec = catalog.get("poly_nl")
    made = plan(spec, {"N": 64, "C": channels}, "training", batch=batch)
    tensors = arguments(spec, made.sizes, batch)
    planned = torch.autograd.grad(training_function(made)(*tensors).sum(), tensors)
    plain = torch.autograd.grad(lower(plan(spec, made.sizes, "as_written", batch=batch))(*tensors).sum(), tensors)
    for a, b in zip(planned, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_the_code_is_plain_torch(name: str):
    spec = catalog.get(name)
    sizes = {"N": 6, "C": 4, "R": 2, "V": 2, "H": 4, "W": 6, "G": 2, "K": 2, "S": 2, "U": 2}
    sizes = {n: v for n, v in sizes.items() if n in spec.sizes.names}
    sizes = {n: v for n, v in sizes.items() if not (n == "V" and "U" in sizes)} | ({"M": 2} if name == "cgnl" else {})
    made = plan(spec, sizes, "training")
    for code in (lower(made).code, lower_backward(made).code):
        assert set(re.findall(r"torch\.(\w+)\(", code)) <= OPERATIONS
        assert "einsum" not in code


def test_names_that_python_reserves_are_arguments_like_others():
    spec = Spec("x[N]; y[a] = lambda[a]*x[a] + self[a] + torch[a]*t1[a] + w1[a] + W1[a] + print[a] + x_1[a]*x[a]")
    made = plan(spec, {"N": 3})
    tensors = arguments(spec, made.sizes, 2)
    np.testing.assert_allclose(lower(made)(*tensors).detach().numpy(), reference(spec, made.sizes, tensors, 2))


def test_other_sizes_are_refused_and_other_batches_are_not():
    graph = lower(plan(catalog.get("nl"), {"N": 4, "C": 2}))
    w = torch.ones(2, 2)
    assert graph(torch.ones(5, 4, 2), wf=w, wg=w).shape == (5, 4, 2)
    assert graph(torch.ones(0, 4, 2), wf=w, wg=w).shape == (0, 4, 2)
    with pytest.raises(SizeError) as caught:
        graph(torch.ones(1, 3, 2), wf=w, wg=w)
    assert str(caught.value) == "'x' has shape (1, 3, 2), but this graph was planned for (B, 4, 2)"


def test_half_precision_carries_one_over_n_in_the_accumulator():
    graph = lower(plan(Spec("x[N,C]; g[d,f] = 1/N*x[e,d]*x[e,f]; y[a,b] = x[a,d]*g[d,b]"), {"N": 4096, "C": 2}))
    x = torch.full((1, 4096, 2), 30.0, dtype=torch.float16)
    assert torch.equal(graph(x), torch.full((1, 4096, 2), 54000.0, dtype=torch.float16))
