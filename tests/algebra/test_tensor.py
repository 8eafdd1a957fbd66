"""The explicit interaction tensor against its definition, Poly-NL, Eq. 4 and 5."""

from itertools import permutations, product
from math import factorial

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from polyattn import (
    BudgetError,
    NotPolynomialError,
    SizeError,
    Spec,
    apply_interaction,
    catalog,
    structure,
    symmetrise,
)
from polyattn.algebra import tensor
from polyattn.testing import size_assignments, specifications
from tests.drawing import share

from .arrays import agree, tensors_of

SMALL = {"N": 2, "C": 2, "H": 2, "W": 1, "R": 1, "V": 2, "K": 1, "G": 1, "M": 2, "S": 2, "U": 1}
BY_NUMBERS = specifications(functions=False, homogeneous=True, max_inputs=1, max_indices=6)


def parts(spec: Spec, sizes: dict[str, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    tensors = tensors_of(spec, sizes)
    (x,) = spec.inputs
    return tensors[x], {name: tensors[name] for name in spec.parameters}


def small(name: str) -> tuple[Spec, dict[str, int]]:
    spec = catalog.get(name)
    return spec, {s: SMALL[s] for s in spec.sizes.atomic if not (name == "ba_transform_block" and s == "V")} | (
        {"V": 1} if name == "ba_transform_block" else {}
    )


def test_the_tensor_of_nl_is_eq_8_entry_by_entry():
    sizes = {"N": 2, "C": 3}
    _, p = parts(catalog.nl(), sizes)
    w = catalog.nl().interaction_tensor(sizes, p)
    assert w.shape == (2, 3) * 4
    for a, b, c, d, e, f, g, h in np.ndindex(*w.shape):
        by_hand = p["wf"][d, f] * p["wg"][h, b] if a == c and e == g else 0
        assert w[a, b, c, d, e, f, g, h] == pytest.approx(by_hand)


def test_the_tensor_of_poly_nl_is_eq_7_entry_by_entry_in_the_order_of_the_text():
    sizes = {"N": 2, "C": 3}
    _, p = parts(catalog.poly_nl(), sizes)
    w = catalog.poly_nl().interaction_tensor(sizes, p)
    for a, b, e, h, g, f, c, d in np.ndindex(*w.shape):
        by_hand = p["w1"][h, d] * p["w2"][f, d] * p["w3"][d, b] / 2 if a == c and e == g else 0
        assert w[a, b, e, h, g, f, c, d] == pytest.approx(by_hand)


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_every_catalogue_entry_is_a_special_case_of_eq_4(name):
    spec, sizes = small(name)
    x, p = parts(spec, sizes)
    degrees = spec.polynomial().degrees
    tensors = [spec.interaction_tensor(sizes, p, degree=degree) for degree in degrees]
    assert [w.ndim for w in tensors] == [x.ndim * (degree + 1) for degree in degrees]
    assert degrees[-1] == 3
    assert agree(sum(apply_interaction(w, x) for w in tensors), spec.evaluate({"x": x, **p}, sizes))


@pytest.mark.parametrize("name", ["nl", "poly_nl", "latent_gnn"])
def test_the_symmetrised_tensor_is_the_polarisation_of_the_layer(name):
    """D! W(u1, ..., uD) = Σ over subsets S of (-1)^(D-|S|) y(Σ of S), for the symmetrised W."""
    spec, sizes = small(name)
    x, p = parts(spec, sizes)
    w = symmetrise(spec.interaction_tensor(sizes, p))
    units = [np.reshape(row, x.shape) for row in np.eye(x.size)]
    for chosen in product(range(x.size), repeat=3):
        y = 0
        for bits in product((0, 1), repeat=3):
            u = sum((units[k] for k, bit in zip(chosen, bits, strict=True) if bit), np.zeros_like(x))
            y = y + (-1) ** (3 - sum(bits)) * spec.evaluate({"x": u, **p}, sizes)
        places = [i for k in chosen for i in np.unravel_index(k, x.shape)]
        assert agree(w[(..., *places)], y / factorial(3))


@given(st.data())
def test_the_tensor_acts_as_the_specification_evaluates(data):
    spec = data.draw(BY_NUMBERS)
    if not spec.polynomial():
        return
    sizes = data.draw(size_assignments(spec, max_size=2))
    x, p = parts(spec, sizes)
    w = spec.interaction_tensor(sizes, p, degree=None if len(_written_degrees(spec)) == 1 else spec.degree)
    y = apply_interaction(w, x, output_axes=len(spec.output_shape))
    assert agree(y, spec.evaluate({**dict.fromkeys(spec.inputs, x), **p}, sizes))


def _written_degrees(spec: Spec) -> set[int]:
    return {t.degree_in(spec.inputs) for t in spec.expansion().terms}


@given(st.data())
@share(0.4)
def test_symbolic_entries_are_the_numeric_ones(data):
    spec = data.draw(specifications(functions=False, homogeneous=True, max_inputs=1, max_indices=4, max_degree=2))
    sizes = data.draw(size_assignments(spec, max_size=2))
    _, p = parts(spec, sizes)
    w = spec.interaction_tensor(sizes, p)
    values = {
        sympy.Symbol("_".join([name, *map(str, place)])): float(array[place])
        for name, array in p.items()
        for place in np.ndindex(*array.shape)
    }
    entries = spec.interaction_tensor(sizes)
    assert all(entry != 0 for entry in entries.values())
    assert list(entries) == sorted(entries)
    dense = np.zeros_like(w)
    for place, entry in entries.items():
        dense[place] = float(entry.subs(values))
    assert agree(dense, w)


def test_an_identity_of_two_outputs_has_symbolic_entries_on_its_diagonal_only():
    spec = Spec("x[N,N]; y[a,b] = I[a,b]*x[e,f]*w[e,f]")
    entries = spec.interaction_tensor({"N": 2})
    w = {place: sympy.Symbol(f"w_{place[0]}_{place[1]}") for place in product(range(2), repeat=2)}
    assert entries == {(a, a, e, f): w[e, f] for a, e, f in product(range(2), repeat=3)}


def test_symbolic_entries_cancel_and_collect():
    entries = Spec("x[N,C]; y[a,b] = 1/N*x[a,b]*alpha + alpha*x[a,b] - 2*beta*x[a,c]*I[b,c]").interaction_tensor(
        {"N": 2, "C": 1}
    )
    alpha, beta = sympy.symbols("alpha beta")
    assert entries == {(a, 0, a, 0): alpha * sympy.Rational(3, 2) - 2 * beta for a in range(2)}
    assert Spec("x[N]; y[a] = w*x[a] - x[a]*w").interaction_tensor({"N": 2}) == {}


def test_permuted_xs_give_the_same_function_and_the_same_symmetrisation():
    sizes = {"N": 2, "C": 2}
    _, p = parts(catalog.nl(), sizes)
    x, _ = parts(catalog.nl(), sizes)
    w = catalog.nl().interaction_tensor(sizes, p)
    for order in permutations(range(3)):
        moved = w.transpose([0, 1, *(2 + 2 * k + i for k in order for i in (0, 1))])
        assert agree(apply_interaction(moved, x), apply_interaction(w, x))
        assert agree(symmetrise(moved), symmetrise(w))
        assert agree(moved, w) == (order == (0, 1, 2))
    assert agree(symmetrise(symmetrise(w)), symmetrise(w))
    assert agree(apply_interaction(symmetrise(w), x), apply_interaction(w, x))


def test_other_weights_give_another_function_and_another_symmetrisation():
    sizes = {"N": 2, "C": 2}
    x, p = parts(catalog.nl(), sizes)
    one = catalog.nl().interaction_tensor(sizes, p)
    other = catalog.nl().interaction_tensor(sizes, p | {"wf": p["wf"].T})
    assert not agree(symmetrise(one), symmetrise(other))
    assert not agree(apply_interaction(one, x), apply_interaction(other, x))


def test_symmetrisation_of_outputs_with_other_axes_than_the_inputs():
    spec = Spec("x[N,C]; y[a] = x[a,b]*x[c,b]*w[c]")
    sizes = {"N": 2, "C": 3}
    x, p = parts(spec, sizes)
    w = spec.interaction_tensor(sizes, p)
    assert w.shape == (2, 2, 3, 2, 3)
    both = symmetrise(w, axes=2, output_axes=1)
    assert agree(both, both.transpose(0, 3, 4, 1, 2))
    assert agree(apply_interaction(both, x, output_axes=1), spec.evaluate({"x": x, **p}))


def test_several_degrees_have_a_tensor_each_which_add_up():
    spec = Spec("x[N,C]; y[a,b] = x[a,b] + 2*x[a,c]*x[a,c]*u[b] - x[e,b]/N + v[b]*I[a,a]")
    sizes = {"N": 2, "C": 3}
    x, p = parts(spec, sizes)
    with pytest.raises(NotPolynomialError, match=r"degrees \[0, 1, 2\]: choose one tensor with degree="):
        spec.interaction_tensor(sizes, p)
    with pytest.raises(NotPolynomialError, match="no term has degree 3"):
        spec.interaction_tensor(sizes, p, degree=3)
    total = sum(apply_interaction(spec.interaction_tensor(sizes, p, degree=d), x) for d in range(3))
    assert agree(total, spec.evaluate({"x": x, **p}))


def test_nl_is_low_rank_and_block_sparse():
    sizes = {"N": 3, "C": 4}
    generator = np.random.default_rng(0)
    thin = generator.normal(size=(4, 2)) @ generator.normal(size=(2, 4))
    found = structure(catalog.nl().interaction_tensor(sizes, {"wf": thin, "wg": generator.normal(size=(4, 4))}))
    assert found.shape == (3, 4) * 4
    assert found.density == pytest.approx(1 / 9)  # a = c and e = g
    assert found.nonzeros == 3 * 3 * 4**4
    assert found.ranks == (3, 4, 3, 2, 3, 2, 3, 4)  # wf has rank 2 in d and in f
    assert found.full_ranks == (3, 4) * 4


def test_poly_nl_is_block_sparse_and_its_channel_core_of_rank_at_most_c():
    sizes = {"N": 2, "C": 3}
    _, p = parts(catalog.poly_nl(), sizes)
    w = catalog.poly_nl().interaction_tensor(sizes, p)
    assert structure(w).density == pytest.approx(1 / 4)
    assert structure(w).ranks == (2, 3) * 4
    core = w[0, :, 1, :, 1, :, 0, :]  # b, h, f, d
    by_hand = np.einsum("hd,fd,db->bhfd", p["w1"], p["w2"], p["w3"]) / 2
    assert agree(core, by_hand)
    assert structure(core.reshape(9, 9)).ranks == (3, 3)  # (b h) against (f d)


def test_structure_prints_as_a_table():
    text = str(structure(np.diag([1.0, 2.0, 0.0])))
    assert text.splitlines() == [
        "order 2, shape 3 x 3",
        "nonzero entries 2 of 9 (22.2 %)",
        "mode  size  rank of unfolding  full rank would be",
        "   0     3                  2                   3",
        "   1     3                  2                   3",
    ]
    assert structure(np.zeros((2, 2))).ranks == (0, 0)


def test_a_tensor_above_the_budget_is_refused_with_its_size():
    sizes = {"N": 196, "C": 64}
    with pytest.raises(BudgetError, match=r"196 x 64 x 196 .* would need 1.84e\+08 GiB; the budget is 1 GiB"):
        catalog.nl().interaction_tensor(sizes, {})
    with pytest.raises(BudgetError, match=r"shape 2 x 2 x 2 .* 256 entries .* the budget is 9.31e-07 GiB \(budget="):
        catalog.nl().interaction_tensor({"N": 2, "C": 2}, budget=1000)
    w = np.eye(2)
    assert catalog.nl().interaction_tensor({"N": 2, "C": 2}, {"wf": w, "wg": w}, budget=2048).size == 256


def test_the_budget_of_symbolic_tensors_is_one_of_products(monkeypatch):
    """NL has 2 positions of the output and 2 that are summed, and 3 channels four times: 2² 3⁴ products."""
    monkeypatch.setattr(tensor, "MAX_ENTRIES", 2**2 * 3**4)
    assert catalog.nl().interaction_tensor({"N": 2, "C": 3})
    monkeypatch.setattr(tensor, "MAX_ENTRIES", 2**2 * 3**4 - 1)
    with pytest.raises(BudgetError, match="the symbolic tensor needs 324 products; the limit is 323"):
        catalog.nl().interaction_tensor({"N": 2, "C": 3})


def test_symbolic_tensors_have_a_budget_of_products():
    with pytest.raises(BudgetError, match="needs 16,777,216 products"):
        catalog.nl().interaction_tensor({"N": 4, "C": 32}, budget=2**60)


W = np.eye(2)


@pytest.mark.parametrize(
    ("spec", "sizes", "parameters", "error", "message"),
    [
        (catalog.nl(softmax=True), {"N": 2, "C": 2}, {}, NotPolynomialError, "applies functions"),
        (Spec("x[N,C]; z[N]; y[a,b] = x[a,b]*z[a]"), {"N": 2, "C": 2}, {}, NotPolynomialError, "not 2: x, z"),
        (catalog.nl(), {"N": 2}, {"wf": W, "wg": W}, SizeError, "missing size: C"),
        (catalog.nl(), {"N": 2, "C": 2, "M": 2}, {"wf": W, "wg": W}, SizeError, "unknown size 'M'"),
        (catalog.nl(), {"N": 2, "C": 2}, {"wf": W}, SizeError, "parameter 'wg' is missing"),
        (catalog.nl(), {"N": 2, "C": 2}, {"wf": W, "wg": W, "wh": W}, SizeError, "no parameter 'wh'"),
        (catalog.nl(), {"N": 2, "C": 2}, {"wf": W, "wg": np.eye(3)}, SizeError, r"'wg' must have shape \(2, 2\)"),
    ],
)
def test_what_has_no_tensor_is_refused(spec, sizes, parameters, error, message):
    with pytest.raises(error, match=message):
        spec.interaction_tensor(sizes, parameters)


@pytest.mark.parametrize("spec", [catalog.nl(softmax=True), Spec("x[N,C]; z[N]; y[a,b] = x[a,b]*z[a]")])
def test_what_has_no_tensor_has_no_symbolic_one(spec):
    with pytest.raises(NotPolynomialError):
        spec.interaction_tensor({"N": 2, "C": 2})


@pytest.mark.parametrize(
    ("w", "x", "message"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2)), "order 3 does not act on inputs of 2 axes to give outputs of 2"),
        (np.zeros((2, 2, 2, 3)), np.zeros((2, 2)), r"last 2 modes have sizes \(2, 3\), .* shape \(2, 2\)"),
        (np.zeros((2, 2)), np.zeros(()), "inputs of 0 axes"),
    ],
)
def test_a_tensor_that_does_not_fit_the_input_is_refused(w, x, message):
    with pytest.raises(SizeError, match=message):
        apply_interaction(w, x)


def test_a_tensor_of_another_order_has_no_symmetrisation():
    with pytest.raises(SizeError, match="order 5"):
        symmetrise(np.zeros((2,) * 5))


def test_complex_parameters_give_a_complex_tensor():
    w = Spec("x[N,C]; y[a,b] = x[a,c]*w[c,b]").interaction_tensor({"N": 1, "C": 2}, {"w": 1j * np.eye(2)})
    assert agree(apply_interaction(w, np.ones((1, 2))).imag, np.ones((1, 2)))
