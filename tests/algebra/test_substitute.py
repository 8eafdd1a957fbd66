"""Substitution: parameters replaced by definitions, which the values agree with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn import Spec, SpecError, catalog
from polyattn.testing import size_assignments, specifications

from .arrays import agree, tensors_of


def test_the_value_is_that_of_the_definition_put_in():
    spec = catalog.nl()
    small = spec.substitute("wf[d,f] = wq[d,r]*wk[f,r]", "r : R")
    tensors = tensors_of(small, {"N": 3, "C": 4, "R": 2})
    wf = tensors["wq"] @ tensors["wk"].T
    by_hand = spec.evaluate({"x": tensors["x"], "wf": wf, "wg": tensors["wg"]})
    assert agree(small.evaluate(tensors), by_hand)
    assert small.parameters == {"wq": ("C", "R"), "wk": ("C", "R"), "wg": ("C", "C")}
    assert small.inputs == spec.inputs


@given(st.data())
def test_a_parameter_doubled_by_a_definition_is_twice_the_parameter(data):
    spec = data.draw(specifications().filter(lambda s: s.parameters))
    name = data.draw(st.sampled_from(sorted(spec.parameters)))
    slots = ",".join(f"slot{k}" for k in range(len(spec.shape(name))))
    access = f"[{slots}]" if slots else ""
    doubled = spec.substitute(f"{name}{access} = 2*half{access}")
    sizes = data.draw(size_assignments(spec, max_size=2))
    tensors = tensors_of(spec, sizes)
    given_ = {n: tensors[name if n == "half" else n] for n in {**doubled.inputs, **doubled.parameters}}
    assert agree(doubled.evaluate(given_, sizes), spec.evaluate(tensors | {name: 2 * tensors[name]}, sizes))
    back = doubled.substitute(f"half{access} = 0.5*whole{access}")
    whole = spec.substitute(f"{name}{access} = whole{access}")
    assert back.polynomial() == whole.polynomial()


@pytest.mark.parametrize("letters", ["dfc", "fdc", "bac", "hea", "abe"])
def test_letters_of_a_definition_are_its_own(letters):
    spec = Spec("x[C,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f]*x[e,h]*wg[h,b]")
    i, j, k = letters
    factorised = spec.substitute(f"wf[{i},{j}] = u[{i},{k}]*v[{k},{j}]", f"{k} : C")
    by_hand = Spec("x[C,C]; y[a,b] = x[a,d]*u[d,c]*v[c,f]*x[e,f]*x[e,h]*wg[h,b]; where c : C")
    assert factorised.polynomial() == by_hand.polynomial()


def test_a_definition_serves_all_places_of_its_parameter():
    spec = Spec("x[N,C]; z[a,b] = x[a,d]*w[d,b]; y[a,b] = z[a,d]*w[d,b] + w[b,d]*x[a,d]")
    outer = spec.substitute("w[i,j] = u[i]*v[j]")
    tensors = tensors_of(outer, {"N": 2, "C": 3})
    w = np.outer(tensors["u"], tensors["v"])
    assert agree(outer.evaluate(tensors), spec.evaluate({"x": tensors["x"], "w": w}))


def test_a_definition_may_use_the_input_and_other_definitions():
    spec = Spec("x[N,C]; y[a,b] = x[a,d]*g[d,b]")
    gram = spec.substitute("s[e,b] = x[e,c]*w[c,b]", "g[d,b] = 1/N * x[e,d]*s[e,b]")
    assert gram.degree == 3
    x, w = (tensors_of(gram, {"N": 3, "C": 2})[n] for n in ("x", "w"))
    assert agree(gram.evaluate({"x": x, "w": w}), x @ (x.T @ x @ w) / 3)


def test_substitutions_one_after_the_other_are_one_of_both():
    both = catalog.nl().substitute("wf[d,f] = u[d]*v[f]", "wg[h,b] = u[h]*v[b]")
    one_by_one = catalog.nl().substitute("wf[d,f] = u[d]*v[f]").substitute("wg[h,b] = u[h]*v[b]")
    assert both.polynomial() == one_by_one.polynomial()


def test_a_scalar_and_the_identity_and_a_split_may_be_put_in():
    spec = Spec("x[N,C]; y[a,b] = alpha*x[a,d]*w[d,b]")
    assert (
        spec.substitute("alpha = 1/N", "w[d,b] = I[d,b]").polynomial() == Spec("x[N,C]; y[a,b] = x[a,b]/N").polynomial()
    )
    grouped = spec.substitute("w[(g m),(h n)] = I[g,h]*v[g,m,n]", "C = G*M", "where g, h : G", "where m, n : M")
    tensors = tensors_of(grouped, {"N": 2, "G": 2, "M": 3})
    blocks = np.zeros((6, 6))
    for g in range(2):
        blocks[3 * g : 3 * g + 3, 3 * g : 3 * g + 3] = tensors["v"][g]
    assert agree(grouped.evaluate(tensors), tensors["alpha"] * tensors["x"] @ blocks)


def test_a_function_may_be_put_in():
    soft = catalog.nl().substitute("wf[d,f] = softmax[f](w[d,f])")
    assert not soft.is_polynomial
    assert soft.parameters == {"w": ("C", "C"), "wg": ("C", "C")}


def test_the_polynomial_and_the_specification_substitute_alike():
    statements = ("wq[d,r] = u[d,k]*v[k,r]", "k : K")
    assert catalog.e_nl().polynomial().substitute(*statements) == catalog.e_nl().substitute(*statements).polynomial()


def test_nothing_to_substitute_changes_nothing():
    assert catalog.nl().substitute() == catalog.nl()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("wh[d,f] = u[d]*v[f]", "'wh' is not a parameter of this specification"),
        ("wf[d,f] = wq[d,r]*wk[f,r]", "size of index 'r' is not known"),
        ("wf[d] = u[d]", "'wf'"),
        ("wf[d,f] = wf[f,d]", "'wf' is used in its own definition"),
        ("x[d,f] = u[d,f]", "'x'"),
    ],
)
def test_what_cannot_be_put_in_is_refused(statement, message):
    with pytest.raises(SpecError, match=message):
        catalog.nl().substitute(statement)
