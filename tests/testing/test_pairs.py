"""Pairs: rewriting keeps the value, near misses change it, and the prover finds both."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sympy import isprime

import polyattn as pa
from polyattn.testing import equivalent_pairs, near_misses, specification_texts
from polyattn.testing.modular import agree, prime_for, value
from polyattn.testing.pairs import REWRITINGS, generic_sizes, rewritten
from tests.drawing import share

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


@share(0.6)
@given(near_misses(**SMALL))
def test_near_misses_are_never_proved_equal(pair):
    assert not same(*pair)
    assert pa.prove(*pair).status != "equal"


@share(0.2)
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
    prime = prime_for(spec, seed=7)
    sizes = {"N": 3, "C": 2}
    tensors = {}
    for name, shape in {"x": (3, 2), "w": (2, 2)}.items():
        generator = np.random.default_rng([7, *name.encode()])
        tensors[name] = generator.integers(0, prime, shape).astype(object)
    x, w, third = tensors["x"], tensors["w"], pow(3, -1, prime)
    mean = x.sum(axis=0) * third
    expected = (3 * (x @ w) * third - (x + mean) * mean) % prime
    assert (value(spec, sizes, seed=7) == expected).all()


@pytest.mark.parametrize("prime", [2**31 - 1, 2**31 - 19, 2**30 + 3])
@pytest.mark.parametrize("text", ["{p}*x[a]", "1/{p}*x[a]", "{q}*x[a] + x[a]", "relu({p}*x[a])", "2*(x[a] - {p}*x[a])"])
def test_no_prime_hides_a_coefficient_from_the_oracle(text, prime):
    """The coefficients are multiples of primes below 2^31, which vanish modulo these or have no inverse."""
    body = text.format(p=prime, q=prime - 1)
    other = body.replace(str(prime), str(2 * prime)).replace(str(prime - 1), str(2 * prime - 1))
    assert not same(f"x[N]; y[a] = {body}", f"x[N]; y[a] = {other}")
    assert same(f"x[N]; y[a] = {body}", f"x[N]; y[b] = {body.replace('[a]', '[b]')}")
    chosen = prime_for(pa.Spec(f"x[N]; y[a] = {body}"))
    assert chosen != prime
    assert 2**30 < chosen < 2**31
    assert isprime(chosen)
