"""Generated pairs with functions: no verdict is wrong, by values that share nothing with the library."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from benchmarks._laws import agree, differ_at, pair, text
from tests.drawing import share


@share(0.5)
@given(st.integers(0, 2**32))
def test_forms_equal_by_laws_are_never_called_different(seed: int):
    random = Random(seed)
    left, right = pair(random, near=False)
    verdict = pa.prove(text(left), text(right), effort=20)
    assert verdict.status != "different" or differ_at(left, right, verdict.counterexample)


@share(0.5)
@given(st.integers(0, 2**32))
def test_forms_with_other_values_are_never_called_equal(seed: int):
    random = Random(seed)
    left, right = pair(random, near=True)
    if agree(left, right, random) is False:
        verdict = pa.prove(text(left), text(right), effort=20)
        assert verdict.status != "equal"
        assert verdict.status != "different" or differ_at(left, right, verdict.counterexample)
