"""Factorisations: exact where the rank suffices, within the budget, and honest about their errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyattn as pa
from polyattn.errors import FittingError
from polyattn.fitting import factorise
from polyattn.fitting.choosing import within_error
from polyattn.fitting.family import symmetrised
from tests.drawing import share

C = 5
MADE = {
    "cp_nl": ("br,dr,fr,hr->bdfh", [(C, 4)] * 4, 4, 3),
    "tucker_nl": ("rstu,dr,fs,ht,bu->bdfh", [(2, 3, 3, 2), (C, 2), (C, 3), (C, 3), (C, 2)], (2, 3, 3, 2), (2, 2, 3, 2)),
    "tt_nl": ("dr,rfs,sht,tb->bdfh", [(C, 2), (2, C, 3), (3, C, 2), (2, C)], (2, 3, 2), (2, 2, 2)),
    "block_term_nl": ("gdr,gfr,ghs,gsb->bdfh", [(2, C, 2), (2, C, 2), (2, C, 3), (2, 3, C)], (2, 2, 3), (1, 2, 3)),
}
"""For each family a contraction that makes a core, the shapes of its random factors, its rank, and one too low."""


def random_core(family, seed=0):
    equation, shapes, *_ = MADE[family]
    generator = np.random.default_rng(seed)
    return np.einsum(equation, *(generator.normal(size=s) for s in shapes))


def by_loops(core, x, mean):
    """`y[a,b] = Σ x[a,d] x[e,f] x[e,h] T[b,d,f,h]`, with N numbers x of C, or the constant 1 behind them."""
    if core.shape[1] > x.shape[1]:
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
    gram = sum(np.outer(row, row) for row in x) / (len(x) if mean else 1)
    return np.array([[row @ np.tensordot(t, gram, 2) for t in core] for row in x])


@pytest.mark.parametrize(("symmetry", "seed"), [("pair", 0), ("none", 1)])
@pytest.mark.parametrize("family", MADE)
def test_a_core_of_known_rank_is_recovered_exactly_at_that_rank_and_not_below(family, symmetry, seed):
    core = random_core(family, seed)
    _, _, rank, below = MADE[family]
    found = factorise(core, family, rank=rank, symmetry=symmetry, starts=3)
    assert found.error < 1e-6
    kept = core if symmetry == "none" else symmetrised(core)
    approximation = found.approximation if symmetry == "none" else symmetrised(found.approximation)
    np.testing.assert_allclose(approximation, kept, atol=1e-6 * np.abs(core).max())
    assert factorise(core, family, rank=below, symmetry=symmetry, starts=2, iterations=60).error > 1e-3


@pytest.mark.parametrize(("mean", "bias"), [(False, False), (True, True)])
@pytest.mark.parametrize("family", MADE)
def test_the_layer_computes_what_the_approximated_core_says(family, mean, bias):
    core = random_core(family)
    if bias:
        core = np.random.default_rng(3).normal(size=(C, C + 1, C + 1, C + 1))
    found = factorise(core, family, rank=MADE[family][3], mean=mean, starts=1, iterations=10)
    x = np.random.default_rng(4).normal(size=(7, C))
    y = found.spec.evaluate({"x": x, **found.parameters})
    np.testing.assert_allclose(y, by_loops(found.approximation, x, mean), rtol=1e-9, atol=1e-9)
    assert found.parameter_count == sum(p.size for p in found.parameters.values())
    if not bias:
        core_again = found.spec.channel_core(C, found.parameters)
        np.testing.assert_allclose(core_again.symmetrised(), symmetrised(found.approximation), atol=1e-9)
        assert core_again.powers == ((("N", -1),) if mean else ())


@pytest.mark.parametrize("family", MADE)
def test_every_factorisation_passes_verify(family):
    found = factorise(random_core(family), family, rank=MADE[family][3], starts=1, iterations=5, sizes={"N": 6})
    assert pa.verify(found.plan, level="modular", seed=0)
    assert found.macs == found.plan.macs


@share(0.3)
@given(st.sampled_from(sorted(MADE)), st.integers(0, 1000), st.booleans(), st.sampled_from(["pair", "none"]))
def test_the_bound_holds_on_fresh_data(family, seed, mean, symmetry):
    generator = np.random.default_rng(seed)
    core = random_core(family, seed)
    rank = MADE[family][3]
    found = factorise(core, family, rank=rank, mean=mean, symmetry=symmetry, starts=1, iterations=5)
    x = generator.normal(size=(2, generator.integers(1, 9), C)) * generator.uniform(0.1, 10, size=C)
    off = [found.spec.evaluate({"x": s, **found.parameters}) - by_loops(core, s, mean) for s in x]
    assert np.linalg.norm(off) <= found.bound(x) * (1 + 1e-9)
    assert found.bound(x) <= 1e3 * np.linalg.norm(off)  # it is no empty bound


def test_exchanging_the_pair_saves_rank():
    """A product of two matrices has CP rank C², also by any of its entries; up to the exchange fewer terms hold it."""
    generator = np.random.default_rng(0)
    core = np.einsum("df,hb->bdfh", *generator.normal(size=(2, 3, 3)))
    at = {s: factorise(core, rank=6, symmetry=s, starts=4).error for s in ("pair", "none")}
    assert at["pair"] < 1e-6 < 1e-2 < at["none"]
    assert factorise(core, rank=9, symmetry="none").error < 1e-6


def test_an_antisymmetric_part_changes_neither_the_layer_nor_its_fit():
    core, other = random_core("cp_nl"), np.random.default_rng(5).normal(size=(C,) * 4)
    moved = core + (other - other.swapaxes(2, 3))
    assert factorise(moved, rank=4).error < 1e-6
    assert factorise(moved, rank=4, symmetry="none", starts=1).error > 0.1


def test_one_matrix_for_key_and_value_holds_a_core_that_is_made_so():
    generator = np.random.default_rng(0)
    u, v, o = generator.normal(size=(3, C, 4))
    core = np.einsum("dr,fr,hr,br->bdfh", u, v, v, o)
    found = factorise(core, rank=4, symmetry="shared")
    assert found.error < 1e-6
    assert set(found.parameters) == {"wq", "wk", "wo"}
    with pytest.raises(pa.FittingError, match="no form with one matrix"):
        factorise(core, "tt_nl", rank=(1, 1, 1), symmetry="shared")


@pytest.mark.parametrize("family", MADE)
def test_a_budget_is_kept_and_the_next_rank_would_break_it(family):
    core = random_core(family)
    some = factorise(core, family, rank=MADE[family][3], starts=1, iterations=3, sizes={"N": 64})
    for name, cost in (("max_macs", some.macs), ("max_params", some.parameter_count)):
        found = factorise(core, family, **{name: cost}, starts=1, iterations=3, sizes={"N": 64})
        spent = found.macs if name == "max_macs" else found.parameter_count
        assert spent <= cost
        with pytest.raises(pa.FittingError, match=f"no {family} keeps to 3"):
            factorise(core, family, **{name: 3})


@pytest.mark.parametrize("family", MADE)
def test_an_error_is_reached_with_the_smallest_rank_of_those_tried(family):
    core = random_core(family)
    found = factorise(core, family, max_error=1e-5, starts=3, iterations=100)
    assert found.error <= 1e-5
    if family == "cp_nl":
        assert found.ranks == (4,)
    with pytest.raises(pa.FittingError, match="reaches a relative error of -1"):
        factorise(np.ones((1, 1, 1, 1)), family, max_error=-1.0, starts=1)


def test_an_explicit_tensor_is_recognised_first():
    w = np.random.default_rng(0).normal(size=(2, 3, 3))
    spec = pa.catalog.nl()
    parameters = {"wf": w[0], "wg": w[1]}
    explicit = spec.interaction_tensor({"N": 2, "C": 3}, parameters)
    for given_ in (explicit, spec.channel_core(3, parameters), torch.tensor(explicit)):
        found = factorise(given_, "tt_nl", rank=(3, 1, 3))
        assert found.error < 1e-10
        assert pa.Spec(str(found.spec)) == found.spec
    x = np.random.default_rng(1).normal(size=(5, 3))
    y = found.spec.evaluate({"x": x, **found.parameters})
    np.testing.assert_allclose(y, (x @ w[0] @ x.T) @ (x @ w[1]), atol=1e-9)


BAD = {
    "exactly one of rank": lambda c: factorise(c),
    "found rank and max_error": lambda c: factorise(c, rank=2, max_error=0.1),
    "unknown family 'cp'": lambda c: factorise(c, "cp", rank=2),
    "rank 126 is too large for cp_nl": lambda c: factorise(c, rank=126),
    r"rank \(6, 2, 6, 6\) is too large for tucker_nl.*at most \(5, 5, 5, 5\)": lambda c: factorise(
        c, "tucker_nl", rank=(6, 2, 6, 6)
    ),
    "3 positive whole numbers, not 2": lambda c: factorise(c, "tt_nl", rank=2),
    "one positive whole number, not 0": lambda c: factorise(c, rank=0),
    r"625 of 625 entries are not finite, the first at \(0, 0, 0, 0\): nan": lambda c: factorise(c * np.nan, rank=1),
    "the core is zero": lambda c: factorise(0 * c, rank=1),
    r"found shape \(5, 5, 5\)": lambda c: factorise(c[0], rank=1),
    "unknown symmetry 'all'": lambda c: factorise(c, rank=1, symmetry="all"),
    "name the sizes of positions N": lambda c: factorise(
        pa.Spec("x[L,C]; y[a,b] = 1/L*x[a,d]*x[e,f]*x[e,h]*w[d,f,h,b]").channel_core(5, {"w": c}), rank=1
    ),
    r"is for key and value at NL's positions; found δ\[y,x1,x2,x3\]": lambda c: factorise(
        pa.Spec("x[N,C]; y[a,b] = x[a,d]*x[a,f]*x[a,h]*w[d,f,h,b]").channel_core(5, {"w": c}), rank=1, symmetry="shared"
    ),
    "none of the known patterns": lambda c: factorise(np.random.default_rng(0).normal(size=(2, 2) * 4), rank=1),
    "real numbers; found complex128": lambda c: factorise(c * 1j, rank=1),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_with_what_was_found(message):
    with pytest.raises(pa.FittingError, match=message):
        BAD[message](random_core("cp_nl"))


def test_the_users_backend_of_tensorly_stays_and_a_seed_decides_the_result():
    before = tensorly.get_backend()
    state = torch.get_rng_state()
    first, again, other = (factorise(random_core("cp_nl"), rank=2, starts=2, seed=s) for s in (0, 0, 1))
    assert tensorly.get_backend() == before
    assert torch.equal(torch.get_rng_state(), state)
    for name, array in first.parameters.items():
        np.testing.assert_array_equal(array, again.parameters[name])
    assert first.errors[1] != other.errors[1]


@pytest.mark.parametrize("length", range(1, 10))
def test_the_first_rank_within_an_error_is_found_and_no_other(length):
    """Against a search through all ranks; limits that an error meets exactly are met."""
    errors = [0.5**k for k in range(length)]
    ladder = [(k + 1,) for k in range(length)]

    def fitted(ranks):
        return SimpleNamespace(family="cp_nl", ranks=ranks, error=errors[ranks[0] - 1])

    for limit in (*errors, *(1.5 * e for e in errors), *(0.99 * e for e in errors)):
        wanted = next((r for r, e in zip(ladder, errors, strict=True) if e <= limit), None)
        if wanted is None:
            with pytest.raises(FittingError, match=f"no cp_nl reaches a relative error of {limit:g}"):
                within_error(ladder, fitted, limit)
        else:
            assert within_error(ladder, fitted, limit).ranks == wanted
