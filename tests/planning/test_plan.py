"""Facts of plans: what they count, what they choose, and that nothing about sizes is guessed."""

import re
from math import prod

import opt_einsum
import pytest
import sympy
import torch

from polyattn import BudgetError, SizeError, Spec, catalog, lower, plan
from polyattn.planning import Device

SIZES = {"N": 96, "C": 8, "R": 3, "V": 2, "H": 8, "W": 12, "G": 2, "K": 3, "S": 4}


def sizes_for(spec: Spec) -> dict[str, int]:
    given = {name: SIZES[name] for name in spec.sizes.names if name in SIZES}
    if spec == catalog.get("cgnl"):
        given["M"] = 4
    if "U" in spec.sizes.names:
        given = {name: given[name] for name in given if name != "V"} | {"U": 2, "V": 3}
    return given


def at(plan_) -> dict[sympy.Symbol, int]:
    values = {**plan_.sizes, "B": plan_.batch}
    return {s: values[s.name] for s in plan_.complexity.free_symbols | plan_.training_complexity.free_symbols}


@pytest.mark.parametrize("sizes", [None, 5])
def test_what_is_no_mapping_of_sizes_is_refused_with_the_sizes_that_are_wanted(sizes):
    with pytest.raises(SizeError, match=r"sizes must be a mapping such as \{'N': \.\.\., 'C': \.\.\.\}, not"):
        plan(catalog.nl(), sizes)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nl", "2*B*C**2*N + 2*B*C*N**2"),
        ("poly_nl", "3*B*C**2*N + 2*B*C*N"),
        ("e_nl", "3*B*C*N*R + B*C*N*V + B*C*R*V + B*N*R*V"),
    ],
)
def test_as_written_counts_what_the_papers_do(name: str, count: str):
    spec = catalog.get(name)
    symbols = {n: sympy.Symbol(n, positive=True, integer=True) for n in "BCNRV"}
    written = plan(spec, {**sizes_for(spec), "B": 2}, "as_written")
    assert sympy.expand(written.complexity - sympy.sympify(count, locals=symbols)) == 0


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_no_plan_takes_more_than_the_authors_order(name: str):
    spec = catalog.get(name)
    sizes = {**sizes_for(spec), "B": 2}
    chosen, written = plan(spec, sizes), plan(spec, sizes, "as_written")
    assert chosen.macs <= written.macs
    assert chosen.complexity.subs(at(chosen)) == chosen.macs


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_no_training_plan_takes_more_than_autograd_of_the_authors_order(name: str):
    spec = catalog.get(name)
    sizes = {**sizes_for(spec), "B": 2}
    chosen, written = plan(spec, sizes, "training"), plan(spec, sizes, "as_written")
    assert chosen.training_macs <= written.training_macs
    assert chosen.complexity.subs(at(chosen)) == chosen.macs
    assert chosen.training_complexity.subs(at(chosen)) == chosen.training_macs


@pytest.mark.parametrize("name", ["ba_transform_block", "nl", "e_nl"])
def test_macs_stay_within_the_text_where_arithmetic_is_free(name: str):
    """On such a device an order with more arithmetic and less traffic is the faster one."""
    spec, device = catalog.get(name), Device("memory alone", 1e30, 1.0, 0.0)
    sizes = {**sizes_for(spec), "B": 2}
    written = plan(spec, sizes, "as_written")
    assert plan(spec, sizes, device=device).macs <= written.macs
    assert plan(spec, sizes, "training", device=device).training_macs <= written.training_macs


def test_nothing_is_computed_again_where_autograds_macs_are_used_up():
    """Each product of the text has two gradients, so computing relu again would be a product more than autograd's."""
    spec = Spec("x[N,C]; z[a,d] = relu(x[a,d]*s[d]); y[a,b] = z[a,d]*w[d,b]")
    made = plan(spec, {"B": 1, "N": 64, "C": 256}, "training", cost="macs")
    assert made.training_macs == 3 * (64 * 256 + 64 * 256 * 256)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("x[N,C]; y[a] = x[a,d]*x[a,d]", 5 + 5 * 7),  # the squares are written out beside the sums
        ("x[N,C]; where r : R; k[a,r] = x[a,d]*u[d,r]; y[a,b] = k[a,r]*v[r,b]", 5 * 3 + 5 * 7),
        ("x[N,C]; a1[a,d] = relu(x[a,d]); b1[a,d] = sigmoid(a1[a,d]); y[a,d] = a1[a,d]*b1[a,d]", 3 * 5 * 7),
    ],
)
def test_the_peak_by_hand(text: str, entries: int):
    spec = Spec(text)
    sizes = {n: v for n, v in {"N": 5, "C": 7, "R": 3}.items() if n in spec.sizes.names}
    made = plan(spec, {**sizes, "B": 2}, "as_written")
    assert made.step_peak_bytes == made.peak_bytes == 4 * 2 * entries


@pytest.mark.parametrize("name", ["nl", "poly_nl", "e_nl", "latent_gnn"])
@pytest.mark.parametrize(("positions", "channels"), [(49, 64), (784, 32), (3136, 16)])
def test_a_single_monomial_is_never_dearer_than_opt_einsums_best_path(name: str, positions: int, channels: int):
    spec = catalog.get(name)
    sizes = {"N": positions, "C": channels, "R": 5, "V": 7}
    sizes = {n: v for n, v in sizes.items() if n in spec.sizes.names}
    (term,) = spec.polynomial().terms
    letters = {
        i: opt_einsum.get_symbol(k) for k, i in enumerate(dict.fromkeys(i for f in term.factors for i in f.indices))
    }
    texts = ["".join(letters[i] for i in f.indices) for f in term.factors]
    output = "".join(letters[i] for i in letters if i.id < 2)
    shapes = [tuple(sizes[i.size] for i in f.indices) for f in term.factors]
    _, info = opt_einsum.contract_path(f"{','.join(texts)}->{output}", *shapes, shapes=True, optimize="optimal")
    lengths = {letters[i]: sizes[i.size] for i in letters}
    theirs = sum(
        prod(lengths[c] for c in set("".join(step[2].partition("->")[0].split(",")))) for step in info.contraction_list
    )
    assert plan(spec, sizes, cost="macs").macs <= theirs


def test_poly_nl_trains_with_five_products_over_the_positions():
    spec = catalog.get("poly_nl")
    training = plan(spec, {"B": 2, "N": 4096, "C": 16}, "training")
    b, n, c = (sympy.Symbol(s, positive=True, integer=True) for s in "BNC")
    assert training.training_complexity.coeff(n, 1).coeff(b, 1).coeff(c, 2) == 5
    written = plan(spec, {"B": 2, "N": 4096, "C": 16}, "as_written")
    assert written.training_complexity.coeff(n, 1).coeff(b, 1).coeff(c, 2) == 9
    assert training.kept_bytes <= 0.1 * 4 * 2 * 4096 * 16


def test_a_coefficient_scales_the_smallest_tensor_of_a_gradient():
    """dx[n,c] = dy[c] * (1/N * w[n,c]): the weight is smaller than the gradient of 8 samples, and than the result."""
    made = plan("x[N,C]; y[b] = 1/N*x[a,b]*w[a,b]", {"N": 2, "C": 3}, "training", batch=8)
    scales = [s for s in made.backward_steps if s.operation == "scale"]
    assert [(s.equation, s.shape) for s in scales] == [("[n,c] = 1/N * w[n,c]", (2, 3))]


def test_equal_steps_are_made_once():
    twice = Spec("x[N,C]; y[a,b] = x[a,d]*x[e,d]*x[e,b] + x[a,d]*u[d,c]*x[e,c]*x[e,b]")
    steps = plan(twice, {"N": 500, "C": 4}).steps
    assert len([s for s in steps if s.shape == (1, 4, 4) and s.complexity == "B*N*C*C"]) == 1


def test_a_term_that_shares_a_factor_is_added_before_it_is_applied():
    spec = Spec("x[N,C]; y[a,b] = x[a,d]*u[d,b] + x[a,d]*v[d,b]")
    assert plan(spec, {"N": 100, "C": 8}).macs == 100 * 8 * 8


def test_terms_with_different_powers_of_sizes_are_not_added_before_their_shared_factor():
    spec = Spec("x[N,C]; y[a,b] = 1/N*x[a,d]*u[d,b] + 1/C*x[a,d]*v[d,b]")
    made = plan(spec, {"N": 100, "C": 8})
    x, u, v = (torch.randn(s, dtype=torch.float64) for s in ((1, 100, 8), (8, 8), (8, 8)))
    torch.testing.assert_close(lower(made)(x, u, v), x @ u / 100 + x @ v / 8)


def test_what_the_memory_limit_forbids_to_keep_is_computed_again():
    free = plan(catalog.nl(), {"B": 2, "N": 64, "C": 16}, "training")
    tight = plan(catalog.nl(), {"B": 2, "N": 64, "C": 16}, "training", memory_limit=free.peak_bytes - 1)
    assert tight.peak_bytes < free.peak_bytes
    assert tight.kept_bytes < free.kept_bytes
    assert tight.training_macs > free.training_macs


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"N": 4}, {}, "missing size: C"),
        ({"N": 4, "C": 2, "Q": 3}, {}, "unknown size 'Q'; the sizes are N, C"),
        ({"N": 0, "C": 2}, {}, "size N must be a positive whole number, not 0"),
        ({"N": 4, "C": 2, "B": True}, {}, "the batch must be a positive whole number, not True"),
        ({"N": 4, "C": 2, "B": 3}, {"batch": 2}, "the batch is given twice: B=3 and batch=2"),
        ({"N": 4, "C": 2}, {"objective": "fast"}, "unknown objective 'fast'; there are forward, training, as_written"),
        ({"N": 4, "C": 2}, {"cost": "time"}, "unknown cost 'time'; there are roofline, macs, measured"),
        ({"N": 4, "C": 2}, {"memory_limit": -1}, "memory_limit is a whole number of bytes, 0 or more, or None; not -1"),
        (
            {"N": 4, "C": 2},
            {"memory_limit": 1e6},
            "memory_limit is a whole number of bytes, 0 or more, or None; not 1000000.0",
        ),
        (
            {"N": 4, "C": 2},
            {"memory_limit": True},
            "memory_limit is a whole number of bytes, 0 or more, or None; not True",
        ),
        (
            {"N": 4, "C": 2},
            {"memory_limit": "1M"},
            "memory_limit is a whole number of bytes, 0 or more, or None; not '1M'",
        ),
        (
            {"N": 4, "C": 2},
            {"memory_limit": [9]},
            "memory_limit is a whole number of bytes, 0 or more, or None; not [9]",
        ),
        ({"N": 4, "C": 2}, {"device": "abacus"}, "unknown device 'abacus'; there are cpu, cuda, or give a Device"),
    ],
)
def test_wrong_sizes_and_options_are_named(sizes: dict, options: dict, message: str):
    with pytest.raises(SizeError) as caught:
        plan(catalog.get("nl"), sizes, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("objective", ["forward", "training", "as_written"])
@pytest.mark.parametrize("name", ["nl", "poly_nl", "e_nl"])
def test_a_memory_limit_holds_for_every_objective_and_the_error_says_the_smallest_that_does(name: str, objective: str):
    spec = catalog.get(name)
    with pytest.raises(BudgetError, match="within 10 bytes") as caught:
        plan(spec, sizes_for(spec), objective, memory_limit=10)
    least = int(re.search(r"memory_limit=(\d+)", str(caught.value))[1])
    made = plan(spec, sizes_for(spec), objective, memory_limit=least)
    assert max(made.peak_bytes, made.kept_bytes) <= least
    with pytest.raises(BudgetError):
        plan(spec, sizes_for(spec), objective, memory_limit=least - 1)


def test_the_table_is_what_a_person_can_check():
    text = str(plan(catalog.get("poly_nl"), {"N": 4096, "C": 16}))
    assert "t1    symmetric  [b,c,c1] = 1/N * x[b,n,c] * x[b,n,c1]" in text
    assert "total 2,101,760 MACs (4,203,520 FLOPs) = B*C**3 + 2*B*C**2*N + 2*B*C**2" in text


def test_a_gram_matrix_is_marked_and_its_distinct_entries_counted():
    made = plan(catalog.poly_nl(), {"B": 2, "N": 96, "C": 8})
    (gram,) = (s for s in made.steps if s.symmetric)
    assert (gram.macs, gram.distinct_macs) == (2 * 96 * 8 * 8, 2 * 96 * 8 * 9 // 2)
    assert made.graph.distinct_macs == made.macs - 2 * 96 * 8 * 7 // 2
    assert "t1    symmetric  [b,c,c1] = 1/N * x[b,n,c] * x[b,n,c1]" in str(made)
    assert f"{made.graph.distinct_macs:,} MACs if symmetric steps made each entry once" in str(made)


@pytest.mark.parametrize(
    ("text", "symmetric"),
    [
        ("x[N,C]; y[c,d] = x[e,c]*x[e,d]", True),
        ("x[H,W,C]; y[h,c,i,d] = x[h,e,c]*x[i,e,d]", True),
        ("x[N,N]; y[a,b] = x[a,e]*x[e,b]", False),
        ("x[N,N]; y[a,e,b] = x[a,e]*x[e,b]", False),
        ("x[N,N]; y[a,b] = x[a,e]*x[b,e]", True),
        ("x[N,C]; y[a,c] = x[a,c]*x[a,c]", False),
        ("x[N,C]; y[c,d] = x[e,c]*w[e,d]", False),
    ],
)
def test_a_marked_step_is_a_symmetric_tensor_and_no_other_is(text: str, symmetric: bool):
    spec = Spec(text)
    made = plan(spec, {n: k + 3 for k, n in enumerate(spec.sizes.names)}, batch=1)
    assert any(s.symmetric for s in made.steps) == symmetric
    shape = [made.sizes[spec.sizes.name(slot)] for slot in spec.shape("x")]
    tensors = [torch.randn(1, *shape, dtype=torch.float64)]
    tensors += [torch.randn([made.sizes[spec.sizes.name(s)] for s in spec.shape(w)]).double() for w in spec.parameters]
    y = lower(made)(*tensors)[0]
    half = y.dim() // 2
    turned = y.permute(*range(half, y.dim()), *range(half))
    assert (y.shape == turned.shape and torch.allclose(y, turned)) == symmetric
