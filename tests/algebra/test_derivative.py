"""Vector-Jacobian products: against torch.autograd through torch.einsum of the expanded text, and by differences."""

import re
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Spec, SpecError, catalog
from polyattn.language.functions import RESERVED as FUNCTIONS
from polyattn.testing import size_assignments, specifications

from .arrays import agree, evaluated, tensors_of

ACCESS = re.compile(r"(\w+)(?:\[(.*?)\])?$")


def torch_value(spec: Spec, tensors: dict[str, torch.Tensor], sizes: dict[str, int]) -> torch.Tensor:
    """The expanded text, read anew: its last line is a sum of products without brackets."""
    expanded = spec.expanded()
    known = spec.sizes.solve(sizes)
    (letters,) = expanded.resolved.index_sizes
    lengths = {index: prod(int(a) if a.isdigit() else known[a] for a in atoms) for index, atoms in letters.items()}
    numbers = {index: k for k, index in enumerate(letters)}
    left, _, right = str(expanded).rpartition("\n")[2].partition(" = ")
    output = indices_of(left)
    total = torch.zeros([lengths[i] for i in output], dtype=torch.float64)
    for sign, product in re.findall(r"(^|- |\+ |^-)((?:(?! [+-] ).)+)", right):
        scale, operands = -1.0 if sign.startswith("-") else 1.0, []
        product = product.strip()
        if product.startswith("-"):
            scale, product = -scale, product[1:]
        for operator, factor in re.findall(r"(^|[*/])([^*/]+)", product):
            name, indices = ACCESS.match(factor)[1], indices_of(factor)
            if name[0].isdigit() or (name[0].isupper() and "[" not in factor):
                number = float(name) if name[0].isdigit() else known[name] if name in known else sizes[name]
                scale *= 1 / number if operator == "/" else number
            elif name == "I":
                operands += [torch.eye(lengths[indices[0]], dtype=torch.float64), [numbers[i] for i in indices]]
            else:
                array = tensors[name].reshape([lengths[i] for i in indices])
                operands += [array, [numbers[i] for i in indices]]
        have = [i for i in output if any(numbers[i] in o for o in operands[1::2])]
        value = torch.einsum(*operands, [numbers[i] for i in have]) if operands else torch.ones((), dtype=torch.float64)
        total = total + scale * value.reshape([lengths[i] if i in have else 1 for i in output])
    return total


def indices_of(access: str) -> list[str]:
    return re.findall(r"\w+", ACCESS.match(access)[2] or "")


def seeded(derivative: Spec, tensors: dict[str, np.ndarray], sizes: dict[str, int], seed: np.ndarray) -> np.ndarray:
    needed = {**derivative.inputs, **derivative.parameters}
    known = {size: number for size, number in sizes.items() if size in derivative.sizes.names}
    return derivative.evaluate({n: a for n, a in (tensors | {"dy": seed}).items() if n in needed}, known)


@given(st.data())
def test_the_derivative_is_what_autograd_computes(data):
    spec = data.draw(specifications(functions=False))
    if not spec.polynomial():
        return
    name = data.draw(st.sampled_from(sorted({*spec.inputs, *spec.parameters})))
    sizes = data.draw(size_assignments(spec))
    arrays = tensors_of(spec, sizes)
    y = spec.evaluate(arrays, sizes)
    seed = np.random.default_rng(0).normal(size=y.shape)
    tensors = {n: torch.tensor(a, requires_grad=n == name) for n, a in arrays.items()}
    value = torch_value(spec, tensors, sizes)
    assert agree(value.detach().numpy().reshape(y.shape), y)
    if name not in spec.polynomial().tensors:
        assert not spec.polynomial().derivative(name)
        return
    (value.reshape(y.shape) * torch.tensor(seed)).sum().backward()
    derivative = spec.derivative(name)
    assert derivative.shape(derivative.output) == spec.shape(name)
    assert agree(seeded(derivative, arrays, sizes, seed), tensors[name].grad.numpy())


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_derivatives_of_the_catalogue_by_central_differences(name):
    spec = catalog.get(name)
    few = {"N": 3, "C": 2, "H": 2, "W": 3, "R": 2, "V": 2, "K": 1, "G": 2, "M": 1, "S": 2, "U": 1}
    sizes = {s: few[s] for s in spec.sizes.atomic}
    arrays = tensors_of(spec, sizes)
    seed = np.random.default_rng(0).normal(size=spec.evaluate(arrays, sizes).shape)
    for tensor in arrays:
        _check_by_differences(spec, tensor, arrays, sizes, seed)


def _check_by_differences(spec, tensor, arrays, sizes, seed):
    direction = np.random.default_rng(1).normal(size=arrays[tensor].shape)
    step = 1e-4
    ahead, behind = (
        np.sum(seed * spec.evaluate(arrays | {tensor: arrays[tensor] + h * direction}, sizes)) for h in (step, -step)
    )
    derivative = seeded(spec.derivative(tensor), arrays, sizes, seed)
    np.testing.assert_allclose(np.sum(derivative * direction), (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "tensor"),
    [
        ("x[N,N]; y[a,b] = x[a,a]*x[a,b]", "x"),
        ("x[N,N]; y = x[a,a]*x[b,b]", "x"),
        ("x[N,N]; y[a,b] = x[b,a]*I[a,b] + w[a,a]*x[c,c]", "w"),
        ("x[N,N]; y[a,b] = x[b,a]*I[a,b] + w[a,a]*x[c,c]", "x"),
        ("x[N,C]; where N = P*P; y[(p q),b] = x[(p p),b]*x[(q p),b]", "x"),
    ],
)
def test_derivatives_of_diagonals(text, tensor):
    spec = Spec(text)
    sizes = {"P": 2, "C": 2} if "C" in spec.sizes.names else {"N": 3}
    arrays = tensors_of(spec, sizes)
    seed = np.random.default_rng(0).normal(size=spec.evaluate(arrays, sizes).shape)
    _check_by_differences(spec, tensor, arrays, sizes, seed)


def test_derivatives_beside_a_function_and_inside_of_it():
    spec = catalog.nl(softmax=True)
    sizes = {"N": 3, "C": 2}
    arrays = tensors_of(spec, sizes)
    seed = np.random.default_rng(0).normal(size=(3, 2))
    for tensor in ("wg", "x", "wf"):
        _check_by_differences(spec, tensor, arrays, sizes, seed)


def test_the_derivative_by_what_is_only_summed_has_its_shape():
    spec = Spec("x[N,C]; where d : D; y[a,b] = x[a,b]*w[d]")
    sizes = {"N": 2, "C": 3, "D": 4}
    arrays = tensors_of(spec, sizes)
    derivative = spec.derivative("w")
    assert derivative.output_shape == ("D",)
    np.testing.assert_allclose(seeded(derivative, arrays, sizes, np.ones((2, 3))), np.full(4, arrays["x"].sum()))


def test_the_seed_of_a_composite_output_has_a_size_with_a_name():
    spec = Spec("x[N]; where a : N; where c : 2; y[(b a),c] = x[b]*w[a]*u[c]")
    derivative = spec.derivative("w")
    assert derivative.inputs == {"x": ("N",), "dy": ("NN", "2")}
    assert Spec(str(derivative)) == derivative
    arrays = tensors_of(spec, {"N": 3})
    _check_by_differences(spec, "w", arrays, {"N": 3}, np.random.default_rng(0).normal(size=(9, 2)))


def test_second_derivatives_are_symmetric():
    spec = catalog.poly_nl()
    one = spec.derivative("w1", seed="s").derivative("w2", seed="t")
    other = spec.derivative("w2", seed="s").derivative("w1", seed="t")
    arrays = tensors_of(one, {"N": 3, "C": 2})
    t, u = np.random.default_rng(0).normal(size=(2, 2, 2))
    along_w2, along_w1 = one.evaluate(arrays | {"t": t}), other.evaluate(arrays | {"t": u})
    np.testing.assert_allclose(np.sum(u * along_w2), np.sum(t * along_w1))


def test_the_seed_is_an_input_and_its_name_is_free():
    derivative = catalog.nl().derivative("x", seed="g")
    assert list(derivative.inputs) == ["x", "g"]
    assert derivative.output == "dx"
    assert derivative.inputs["g"] == ("N", "C")
    assert Spec("x[N,C]; dx[N]; y[a,b] = x[a,b]*dx[a]").derivative("x").output == "dx_"


@pytest.mark.parametrize(
    ("tensor", "seed", "message"),
    [
        ("z", "dy", "no tensor 'z'; there are x, wf, wg"),
        ("y", "dy", "no tensor 'y'"),
        ("x", "wf", "seed's name 'wf' is taken"),
        ("x", "y", "seed's name 'y' is taken"),
    ],
)
def test_names_that_do_not_fit_are_refused(tensor, seed, message):
    with pytest.raises(SpecError, match=message):
        catalog.nl().derivative(tensor, seed)


NO_NAMES = [
    "9bad",
    "a b",
    "x;y",
    "",
    "_x",
    "é",
    "where",
    "softmax",
    "I",
    "a\n",
    "dy, q=print()",
    "dy=1",
    "dy:1",
    None,
    3,
]


@pytest.mark.parametrize("seed", NO_NAMES)
def test_a_seed_that_the_language_could_not_name_is_refused(seed):
    with pytest.raises(SpecError, match=r"^the seed (cannot be called|has a name that is text)"):
        catalog.nl().derivative("x", seed)
    with pytest.raises(SpecError, match=r"^the seed"):
        catalog.nl().polynomial().derivative("x", seed)


@given(st.text(max_size=8))
def test_a_seed_of_any_text_is_refused_or_read_again(seed):
    spec = Spec("x[N,C]; w[N]; y = x[e,b]*x[e,b]*w[e]")
    try:
        derivative = spec.derivative("x", seed)
    except SpecError:
        return
    assert seed in derivative.inputs
    assert Spec(str(derivative)) == derivative


@given(st.data())
def test_the_text_of_a_derivative_is_read_again(data):
    spec = data.draw(specifications(functions=False))
    for name in sorted(spec.polynomial().tensors):
        seed = data.draw(st.from_regex(r"[a-z][a-z0-9_]{0,2}", fullmatch=True))
        if seed not in {*spec.inputs, *spec.parameters, spec.output, *FUNCTIONS}:
            derivative = spec.derivative(name, seed)
            assert Spec(str(derivative)) == derivative


def test_the_seed_of_a_scalar_is_a_scalar_input():
    derivative = Spec("x[N,C]; y = x[e,b]*x[e,b]").derivative("x")
    assert str(derivative) == "x[N,C]\ndy[]\ndx[n,c] = 2*dy*x[n,c]"
    assert Spec(str(derivative)) == derivative
    with pytest.raises(SpecError, match="the seed is a scalar and cannot be called 'S'"):
        Spec("x[N,C]; y = x[e,b]*x[e,b]").derivative("x", "S")


def test_a_derivative_that_is_zero_is_no_specification():
    spec = Spec("x[N,C]; z[N]; y[a,b] = x[a,b]*z[a] - z[a]*x[a,b] + x[a,b]")
    with pytest.raises(SpecError, match="'dz' is zero"):
        spec.derivative("z")
    assert not spec.polynomial().derivative("z")


def test_the_derivative_text_evaluates_as_its_polynomial():
    derivative = catalog.e_nl().derivative("wk")
    assert Spec(str(derivative)).polynomial() == catalog.e_nl().polynomial().derivative("wk")
    assert evaluated(derivative, {"N": 3, "C": 2, "R": 2, "V": 2}).shape == (2, 2)
