"""Given equations: what they do, and how bad ones are refused."""

import numpy as np
import pytest

import polyattn as pa
from polyattn.errors import ProofError
from polyattn.proving.evaluation import Point
from polyattn.proving.prove import ask

LAYER = "x[N,C]; y[a,b] = x[a,d]*w[d,b]"
SIMILARITY = "x[N,C]; y[a,e] = x[a,d]*w[d,f]*x[e,f]"
TRANSPOSED = "x[N,C]; y[a,e] = x[e,d]*w[d,f]*x[a,f]"
TRIPLE = "x[N]; where i, j, k : R; y[n] = x[n]*t[i,j,k]*u[i]*v[j]*w[k]"


def test_a_symmetric_weight_makes_the_similarity_symmetric():
    assert pa.prove(SIMILARITY, TRANSPOSED).status == "different"
    assert pa.prove(SIMILARITY, TRANSPOSED, given="w[d,f] = w[f,d]")


def test_an_antisymmetric_weight_is_used_in_counterexamples_only():
    verdict = pa.prove(SIMILARITY, TRANSPOSED, given="w[d,f] = -w[f,d]")
    assert verdict.status == "different"
    w = verdict.counterexample["tensors"]["w"]
    assert all(w[i][j] == -w[j][i] for i in range(len(w)) for j in range(len(w)))


def test_symmetries_of_one_tensor_combine():
    exchanged = TRIPLE.replace("u[i]*v[j]*w[k]", "u[k]*v[i]*w[j]")
    both = ["t[i,j,k] = t[j,i,k]", "t[i,j,k] = t[i,k,j]"]
    assert pa.prove(TRIPLE, exchanged, given=both)
    assert pa.prove(TRIPLE, exchanged, given=both[:1]).status == "different"


def test_a_cyclic_symmetry_is_too_weak_to_be_used_and_left_open():
    rotated = TRIPLE.replace("u[i]*v[j]*w[k]", "u[k]*v[i]*w[j]")
    assert pa.prove(TRIPLE, rotated, given="t[i,j,k] = t[j,k,i]").status == "undecided"


def test_terms_that_a_symmetry_makes_equal_are_added_up():
    two = f"{SIMILARITY} + x[e,d]*w[d,f]*x[a,f]"
    assert pa.prove(two, SIMILARITY.replace("= x", "= 2*x"), given="w[d,f] = w[f,d]")


def test_rows_that_sum_to_one_leave_a_constant_map():
    mean = "x[N,C]; where k : N; m[c] = mean[e](x[e,c]); y[i,c] = {}*m[c]"
    moved, kept = mean.format("p[i,k]"), mean.format("I[i,k]")
    assert pa.prove(moved, kept, given="p[i,k] summed over k is 1")
    verdict = pa.prove(moved, kept, given="p[k,i] summed over k is 1")
    assert verdict.status == "different"
    columns = list(zip(*verdict.counterexample["tensors"]["p"], strict=True))
    assert all(sum(column) == 1 for column in columns)


def test_a_sum_that_leaves_nothing_counts_the_positions():
    summed = "x[N]; y = p[i,k]*x[n]; where i, k : N"
    assert pa.prove(summed, "x[N]; y = N*x[n]", given="p[i,k] summed over k is 1")


def test_a_rule_needs_its_summed_index_to_itself():
    kept = "x[N,C]; where k : N; y[i,c] = p[i,k]*x[k,c]"
    assert pa.prove(kept, "x[N,C]; y[i,c] = x[i,c]", given="p[i,k] summed over k is 1").status == "different"


@pytest.mark.parametrize(
    ("left", "right", "given"),
    [
        # the diagonal of what sums to one over both indices
        ("x[N]; where e : R; y[a] = x[a]*u[a,e,e]", "x[N]; y[a] = x[a]", "u[i,j,k] summed over j, k is 1"),
        # the trace of rows that sum to one
        ("x[N]; where e : N; y[a] = x[a]*p[e,e]", "x[N]; y[a] = x[a]", "p[i,k] summed over k is 1"),
        ("x[N]; where e : N; y[a] = x[a]*p[e,e]", "x[N]; y[a] = N*x[a]", "p[i,k] summed over k is 1"),
        # an index that stays on the left
        ("x[N]; where k : N; y[i,k] = p[i,k]*x[i]", "x[N]; where k : N; y[i,k] = x[i]", "p[i,k] summed over k is 1"),
        # an index that a second factor has too
        ("x[N]; where k : N; y[i] = p[i,k]*p[i,k]*x[i]", "x[N]; y[i] = x[i]", "p[i,k] summed over k is 1"),
        # two factors that do not share the index of the rule
        ("x[N]; where k, m : R; y[a] = x[e]*u[a,k]*u[e,m]", "x[N]; y[a] = x[a]", "u[i,k]*u[j,k] = I[i,j]"),
        (
            "x[N]; where k, m : R; y[a] = x[e]*u[a,k]*u[e,m]",
            "x[N]; where k : R; y[a] = R*x[a]",
            "u[i,k]*u[j,k] = I[i,j]",
        ),
        # one factor in the place of two
        ("x[N]; y[a] = x[a]*v[a]", "x[N]; y[a] = x[a]", "v[i]*v[i] = I[i,i]"),
        ("x[N]; y[a] = x[a]*v[a]", "x[N]; y[a] = x[a]*w[a,a]", "v[i]*v[j] = w[i,j]"),
    ],
)
def test_a_rule_is_not_used_where_its_left_side_does_not_stand(left, right, given):
    """Each right side is what the rule would make if one of its conditions were not looked at."""
    assert_derives_no_equality(pa.prove(left, right, given=given))


def assert_derives_no_equality(verdict):
    """Check that the prover does not derive it: the independent checker, which would refuse, is not needed."""
    assert verdict.status != "equal"
    assert "refuses the certificate" not in verdict.reason


def test_each_use_of_a_definition_sums_an_index_of_its_own():
    left, given = "x[N]; where d, b : C; y[a] = x[a]*w[d,d]*w[b,b]", "w[d,b] = u[d,r]*v[r,b]"
    right = "x[N]; where d, b : C; where r, s : R; y[a] = x[a]*u[d,r]*v[r,d]*u[b,{0}]*v[{0},b]"
    assert pa.prove(left, right.format("s"), given=[given, "r : R"])
    assert_derives_no_equality(pa.prove(left, right.format("r"), given=[given, "r : R"]))


@pytest.mark.parametrize(
    ("given", "satisfied", "violated"),
    [
        ("w[d,b] = w[b,d]", [[1, 2], [2, 3]], [[1, 2], [0, 3]]),
        ("w[d,b] = -w[b,d]", [[0, 2], [-2, 0]], [[0, 2], [2, 0]]),
        ("w[d,b] summed over b is 1", [[2, -1], [0, 1]], [[1, 1], [0, 1]]),
        ("w[d,k]*w[k,b] = w[d,b]", [[1, 1], [0, 0]], [[1, 1], [0, 1]]),
    ],
)
def test_a_point_that_violates_a_given_equation_is_no_counterexample(given, satisfied, violated):
    asked = ask(LAYER, "x[N,C]; y[a,b] = 2*x[a,d]*w[d,b]", given)
    x = np.array([[1, 1]], dtype=object)
    for w, holds in ((satisfied, True), (violated, False)):
        point = Point({"N": 1, "C": 2}, {"x": x, "w": np.array(w, dtype=object)})
        assert (asked.confirmed(point) is not None) == holds


def test_a_projection_applied_twice_is_applied_once():
    once, twice = "x[N,C]; y[i,c] = p[i,k]*x[k,c]", "x[N,C]; y[i,c] = p[i,j]*p[j,k]*x[k,c]"
    assert pa.prove(once, twice, given="p[i,j]*p[j,k] = p[i,k]")
    assert pa.prove(once, twice).status == "different"


def test_definitions_may_build_on_each_other_in_any_order():
    given = ["s[d,t] = x[d,t]", "u[d,r] = s[d,t]*s[r,t]", "w[d,b] = u[d,r]*v[r,b]", "t : N"]
    right = "x[N,N]; y[a,b] = x[a,d]*x[d,t]*x[r,t]*v[r,b]"
    assert pa.prove("x[N,N]; y[a,b] = x[a,d]*w[d,b]", right, given=given)


def test_a_definition_may_apply_a_function():
    right = "x[N,C]; p[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = p[a,e]*x[e,b]"
    assert pa.prove("x[N,C]; y[a,b] = q[a,e]*x[e,b]", right, given="q[a,e] = softmax[e](x[a,d]*x[e,d])")


def test_a_definition_may_be_constant_along_an_index():
    assert pa.prove(LAYER, "x[N,C]; y[a,b] = x[a,d]*v[d]*I[b,b]", given="w[d,b] = v[d]")


def test_sizes_of_new_indices_are_inferred_from_the_other_side():
    right = "x[N,C]; where r : R; y[a,b] = x[a,d]*u[d,r]*v[r,b]"
    assert pa.prove(LAYER, right, given="w[d,b] = u[d,r]*v[r,b]")


def test_equations_that_no_simple_tensors_satisfy_are_pointed_out():
    verdict = pa.prove(
        "x[N]; where k : N; y[i] = p[i,k]*x[n]",
        "x[N]; y[i] = x[n]*I[i,i]",
        given=["p[i,k] summed over k is 1", "p[i,k] = 0*q[i,k]"],
    )
    assert "may say nothing" in verdict.reason


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "'nonsense' is no equation"),
        ("w[d,b] = v[d,b", "never closed"),
        ("w[d,b] = v[d,b] = u[d,b]", "one equation with one '='"),
        ("w[d,b] = v[d,b]; u = 1", "one equation with one '='"),
        ("2*w[d,b] = v[d,b]", "only tensors can be multiplied on the left"),
        ("w[d,b] + x[d,b] = v[d,b]", "a tensor or a product of tensors expected on the left"),
        ("z[d,b] = v[d,b]", "is about 'z', which occurs on neither side"),
        ("y[d,b] = v[d,b]", "uses 'y', which the left side defines"),
        ("w[d,b] = w[d,r]*w[r,b]", "is circular"),
        (["w[d,b] = v[d,b]", "v[d,b] = w[d,b]"], "is circular"),
        (["w[d,b] = v[d,b]", "w[d,b] = u[d,b]"], "'w' has two definitions"),
        ("w[d,b] = u[d,r]*v[r,b]", "the size of index 'r' is not known"),
        ("w[d,b] = 1/Q*v[d,b]", "there is no size Q"),
        ("w[d,b] = x[d,b]", "two sizes|has size"),
        ("w[d,b] = w[d,b]", "says nothing"),
        ("w[d,b] = -w[d,b]", "says that it is zero"),
        ("w[d,b] = w[d,f]", "the same indices on both sides|circular"),
        ("I[d,b] = w[d,b]", "cannot be defined"),
        ("w[d,b]*w[b,f] = w[d,k]*w[k,f]", "no end to that"),
        ("w[d,b]*w[b,f] = relu(w[d,f])", "not as a function"),
        ("w[d,b] summed over q is 1", "sums over 'q'"),
        ("w[d,b]*w[f,b] summed over b is w[d,b]", "'b' is summed on the left, and on the right"),
        ("r : R", "no given equation has that index"),
        (["r : R", "r : K", "w[d,b] = u[d,r]*v[r,b]"], "index 'r' has size R by another"),
        (["C = G*M", "C = M*G"], "size C is G.M by"),
        (["C = 2", "C = 3"], "size C is 2 by"),
        (["C = G*M", "G = C*2"], "is a part of itself"),
        ("Q = G*M", "is about size Q"),
        ("C = g*M", "a size is a product of sizes"),
        ([3], "a given equation is text"),
        (["w[d,b] = v[d,b]"] * 1 + [f"C = C{k}*D{k}" for k in range(80)], "81 equations are given"),
        ("w[d,b] = " + "v[d,b]*" * 1000 + "v[d,b]", "the limit is 4,000"),
    ],
)
def test_bad_equations_are_refused_by_name(given, message):
    with pytest.raises(ProofError, match=message):
        pa.prove(LAYER, LAYER, given=given)


@pytest.mark.parametrize(
    "given",
    [
        "w[a,b] = g[a,b]",
        "w[a,b] = y[a,b]",
        "w[a,b] = z[a,b]",
        "w[a,b] = u[a,b] + 2*(u[a,b] - g[a,b])",
        "w[a,b] = relu(g[a,b])",
        "g[a,b] = w[a,b]",
        "g[a,b] = g[b,a]",
        "w[a,b]*w[b,c] = g[a,c]",
        "g[a,b]*w[b,c] = w[a,c]",
        "w[a,b] summed over b is z[a,a]",
    ],
)
def test_a_name_that_a_side_defines_is_refused_on_either_side_of_a_given_equation(given):
    """`g` is an intermediate on the left and a parameter on the right: an equation may mean either."""
    left, right = "x[N,N]; g[a,b] = x[a,b]; y[a,b] = w[a,b]*g[a,b]", "x[N,N]; z[a,b] = w[a,b]*g[a,b]"
    name = next(n for n in "gyz" if f"{n}[" in given)
    with pytest.raises(ProofError, match=f"uses '{name}', which the (left|right) side defines"):
        pa.prove(left, right, given=["w[a,b] = w[b,a]", given])
    with pytest.raises(ProofError, match=f"uses '{name}', which the (left|right) side defines"):
        pa.prove(right, left, given=given)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("A[i,i] = 0", "A[i,i] summed over i is 0"),
        ("v[i]*u[i] = 1", "v[i]*u[i] summed over i is 1"),
        ("A[i,j]*A[k,j] = I[i,k]", "A[i,j]*A[k,j] summed over j is I[i,k]"),
        ("A[i,j] summed over j is 1", None),
        ("A[i,j] = A[j,i]", None),
        ("A[i,j] = v[i]*u[j]", None),
        ("v[i]*u[j] = A[i,j]", None),
    ],
)
def test_a_verdict_says_how_a_given_equation_is_read(given, read):
    """Whatever the answer is: a trace is zero, not every entry of the diagonal."""
    text = "x[N]; where i, j : N; y[n] = x[n]*A[i,j]*v[i]*u[j]"
    for verdict in (pa.prove(text, text, given=given), pa.prove(text, text.replace("= x", "= 3*x"), given=given)):
        assert (f"{given}, read as {read}" in str(verdict)) if read else ("read as" not in str(verdict))


def test_an_implied_sum_is_the_sum_that_it_is_read_as():
    traceless, zero = "x[N]; where i, j : N; y[n] = x[n]*A[{}]", "x[N]; y[n] = 0*x[n]"
    for given in ("A[i,i] = 0", "A[i,i] summed over i is 0"):
        assert pa.prove(traceless.format("i,i"), zero, given=given)
        assert pa.prove(traceless.format("i,j"), zero, given=given).status == "different"
