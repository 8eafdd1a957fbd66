"""Pairs: rewriting keeps the value, near misses change it, and the prover finds both."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import polyattn as pa
from polyattn.testing import equivalent_pairs, near_misses, specification_texts
from polyattn.testing.modular import PRIME, agree, value
from polyattn.testing.pairs import REWRITINGS, generic_sizes, rewritten

SMALL = {"max_indices": 5, "max_monomials": 5}


def same(left: str, right: str) -> bool:
    one, other = pa.Spec(left), pa.Spec(right)
    try:
        return agree(one, other, generic_sizes(one, other))
    except pa.BudgetError:
        assume(False)
        raise


@given(equivalent_pairs(**SMALL))
def test_equivalent_pairs_are_proved_equal_and_agree_modulo_a_prime(pair):
    assert same(*pair)
    assert pa.prove(*pair).status == "equal"


@settings(max_examples=30)
@given(near_misses(**SMALL))
def test_near_misses_are_never_proved_equal(pair):
    assert not same(*pair)
    assert pa.prove(*pair).status != "equal"


@settings(max_examples=10)
@given(specification_texts(**SMALL), st.randoms(use_true_random=False))
@pytest.mark.parametrize("rewriting", dict.fromkeys(REWRITINGS), ids=lambda r: r.__name__)
def test_every_rewriting_keeps_the_value(rewriting, text, random):
    new = rewriting(pa.Spec(text).statements, random)
    assume(new is not None)
    try:
        other = str(pa.Spec(str(new)))
    except pa.SpecError:
        assume(False)
    assert same(text, other)


def test_rewriting_changes_the_text():
    text = "x[N,C]\ny[a,b] = x[a,d]*w[d,f]*x[e,f]*x[e,b]/N + x[a,b]"
    assert len({rewritten(text, Random(k), 2) for k in range(20)}) > 10


def test_the_oracle_tells_what_is_different():
    left = "x[N,C]; s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]"
    assert same(left, left.replace("d", "k"))
    for old, new in (("softmax[e](x", "softmax[e](2*x"), ("softmax[e]", "softmax[a]"), ("softmax", "normalize")):
        assert not same(left, left.replace(old, new))


def test_the_oracle_is_what_numpy_computes():
    spec = pa.Spec("x[N,C]; m[c] = mean[e](x[e,c]); y[a,b] = 3*x[a,d]*w[d,b]/N - (x[a,b] + m[b])*m[b]")
    sizes = {"N": 3, "C": 2}
    tensors = {}
    for name, shape in {"x": (3, 2), "w": (2, 2)}.items():
        generator = np.random.default_rng([7, *name.encode()])
        tensors[name] = generator.integers(0, PRIME, shape).astype(object)
    x, w, third = tensors["x"], tensors["w"], pow(3, -1, PRIME)
    mean = x.sum(axis=0) * third
    expected = (3 * (x @ w) * third - (x + mean) * mean) % PRIME
    assert (value(spec, sizes, seed=7) == expected).all()
