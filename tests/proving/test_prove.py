"""Verdicts: what is equal is proved, what is not has a counterexample, and nothing else is claimed."""

import sys

import pytest

import polyattn as pa
from polyattn.errors import ProofError, SpecError
from polyattn.proving.independent import checker, refusal

NL = "x[N,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]"
E_NL = """x[N,C]; where r : R; where s : V
    query[a,r] = x[a,d]*wq[d,r]; key[e,r] = x[e,f]*wk[f,r]; value[e,s] = x[e,h]*wv[h,s]
    context[r,s] = 1/N * key[e,r]*value[e,s]
    y[a,b] = query[a,r]*context[r,s]*wo[s,b]"""
SOFTMAX = "x[N,C]; s[a,e] = softmax[e](x[a,d]*wf[d,f]*x[e,f]); y[a,b] = s[a,e]*x[e,b]"


def test_e_nl_is_nl_with_factorised_weights():
    verdict = pa.prove(NL, E_NL, given=["wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = 1/N*wv[h,s]*wo[s,b]"])
    assert verdict
    assert verdict.status == "equal"
    assert verdict.counterexample is None
    assert [pair["powers"] for pair in verdict.certificate["pairs"]] == [{"N": -1}]
    assert [step["use"] for step in verdict.certificate["steps"]] == [0, 1]


def test_a_missing_1_over_n_is_found_with_two_positions():
    verdict = pa.prove(NL, E_NL, given=["wf[d,f] = wq[d,r]*wk[f,r]", "wg[h,b] = wv[h,s]*wo[s,b]"])
    assert not verdict
    assert verdict.counterexample["sizes"] == {"C": 1, "N": 2, "R": 1, "V": 1}
    assert verdict.counterexample["values"] == "exact"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y[a,b] = x[a,d]*w[d,b] + x[a,b]", "y[a,b] = x[a,b] + x[a,h]*w[h,b]"),
        ("y[a,b] = (x[a,d] + x[a,d])*w[d,b]", "y[a,b] = 2*x[a,d]*w[d,b]"),
        ("m[c] = mean[e](x[e,c]); y[a,b] = m[c]*w[a,b]", "y[a,b] = x[e,c]/N*w[a,b]; where a : N; where b : C"),
        ("y[a,b] = x[a,b]*I[c,c]; where c : C", "y[a,b] = C*x[a,b]"),
        ("y[a,b] = x[a,b] + w[b] - w[b]", "y[a,b] = x[a,b]"),
        ("y[a,b] = x[a,d]*I[d,f]*w[f,b]", "y[a,b] = x[a,d]*w[d,b]"),
        (
            "f[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = f[a,e]*x[e,b]",
            "g[e,a] = softmax[a](x[a,c]*x[e,c]); y[a,b] = x[e,b]*g[a,e]",
        ),
        ("f[a] = max[j](x[a,j]); y[a,b] = f[a]*f[a]*x[a,b]", "f[a] = max[c](x[a,c]); y[a,b] = x[a,b]*f[a]*f[a]"),
    ],
)  # fmt: skip
def test_forms_of_one_function_are_equal(one, other):
    assert pa.prove(f"x[N,C]; {one}", f"x[N,C]; {other}").status == "equal"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y[a,b] = x[a,b]", "y[a,b] = 2*x[a,b]"),
        ("y[a,b] = x[a,b]*x[a,b]", "y[a,b] = x[a,b]"),
        ("y[a,b] = N*x[a,b]", "y[a,b] = x[a,b]"),
        ("y[a,b] = x[a,d]*x[e,d]*x[e,b]", "y[a,b] = x[a,d]*x[a,d]*x[a,b]"),
        ("y[a,b] = x[a,b] - x[a,b]", "y[a,b] = x[a,b]"),
        ("f[a,b] = relu(x[a,b]); y[a,b] = f[a,b]", "y[a,b] = x[a,b]"),
        ("f[a,b] = normalize[b](x[a,b]); y[a,b] = f[a,b]", "f[a,b] = normalize[a](x[a,b]); y[a,b] = f[a,b]"),
        ("f[a] = max[b](x[a,b]); y[a,b] = f[a]*x[a,b]", "f[a] = max[b](2*x[a,b]); y[a,b] = f[a]*x[a,b]"),
    ],
)
def test_functions_that_differ_come_with_an_exact_counterexample(one, other):
    verdict = pa.prove(f"x[N,C]; {one}", f"x[N,C]; {other}")
    assert verdict.status == "different"
    assert verdict.counterexample["values"] == "exact"
    assert verdict.counterexample["left"] != verdict.counterexample["right"]


def test_a_scale_inside_a_softmax_is_not_lost():
    verdict = pa.prove(SOFTMAX, SOFTMAX.replace("softmax[e](", "softmax[e](2*"))
    assert verdict.status == "different"
    assert verdict.counterexample["values"] == "enclosed"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x[N,C]; y[a,b] = relu(x[a,b])*relu(x[a,b] - 1)", "x[N,C]; y[a,b] = x[a,b]*relu(x[a,b] - 1)"),
        ("x[N,C]; y[a,b] = abs(x[a,b]*x[a,b] - 1)", "x[N,C]; y[a,b] = abs(x[a,b] - 1)*abs(x[a,b] + 1)"),
    ],
)
def test_what_only_analysis_can_tell_is_undecided(one, other):
    verdict = pa.prove(one, other, effort=2000)
    assert verdict.status == "undecided"
    assert not verdict
    assert "forms differ" in verdict.reason


def test_a_rotation_of_queries_and_keys_goes_through_the_softmax():
    rotated = """x[N,C]; where r, s, t : R
        s0[a,e] = softmax[e](x[a,d]*wq[d,r]*u[r,s]*x[e,f]*wk[f,t]*u[t,s]); y[a,b] = s0[a,e]*x[e,b]"""
    plain = """x[N,C]; where r : R
        s0[a,e] = softmax[e](x[a,d]*wq[d,r]*x[e,f]*wk[f,r]); y[a,b] = s0[a,e]*x[e,b]"""
    assert pa.prove(rotated, plain, given="u[i,k]*u[j,k] = I[i,j]")
    assert pa.prove(rotated, plain).status == "different"


def test_a_proof_uses_only_the_equations_that_it_needs():
    verdict = pa.prove(NL, NL.replace("d", "k"), given=["wf[d,f] = wq[d,r]*wk[f,r]", "r : R"])
    assert verdict.certificate["given"] == []
    assert verdict.given == ("wf[d,f] = wq[d,r]*wk[f,r]", "r : R")


def test_polynomials_and_zero_are_questions_too():
    nl = pa.Spec(NL).polynomial()
    assert pa.prove(nl, NL)
    assert pa.prove(nl - nl, "x[N,C]; y[a,b] = x[a,b] - x[a,b]")
    assert pa.prove(nl - nl, NL).status == "different"


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ("x[N,C]; y[a,b] = x[a,b]", "z[N,C]; y[a,b] = z[a,b]", "the inputs differ: x.N,C. on the left, z.N,C. on"),
        ("x[N,C]; y[a,b] = x[a,b]", "x[N,C]; y[b,a] = x[a,b]", "the outputs have different shapes: y.N,C. .* y.C,N."),
        (
            "x[N,C]; y[a,b] = x[a,d]*w[d,b]",
            "x[N,C]; y[a,b] = x[a,b]*w[a,b]",
            "'w' has different shapes: w.C,C. .* w.N,C.",
        ),
        (
            "x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]*u[g]",
            "x[N,C]; where C = M*G; y[a,(m g)] = x[a,(m g)]*u[g]",
            "size C is G.M by",
        ),
        ("x[N,C]; y[a,b] = x[a,b]", 3, "the right side is a int"),
    ],
)  # fmt: skip
def test_questions_without_sense_are_refused(left, right, message):
    with pytest.raises(ProofError, match=message):
        pa.prove(left, right)


def test_a_wrong_text_shows_its_place():
    with pytest.raises(SpecError, match=r"line 1"):
        pa.prove(NL, "x[N,C]; y[a,b] = x[a,")


def test_a_size_that_one_side_splits_is_split_in_both():
    split = "x[N,C]; where C = G*M; y[a,(g m)] = x[a,(g m)]*w[g]"
    whole = "x[N,C]; y[a,b] = x[a,c]*v[c,b]"
    assert pa.prove(whole, split, given="v[(g m),(k n)] = w[g]*I[g,k]*I[m,n]")


def test_equal_sizes_may_be_given():
    one, other = (
        "x[N,C]; where r : R; y[a,b] = x[a,d]*u[d,r]*v[r,b]",
        "x[N,C]; where r : K; y[a,b] = x[a,d]*u[d,r]*v[r,b]",
    )
    with pytest.raises(ProofError, match="different shapes"):
        pa.prove(one, other)
    assert pa.prove(one, other, given="R = K")
    assert pa.prove(
        one.replace("y[a,b] = ", "y[a,b] = 1/R*"), other.replace("y[a,b] = ", "y[a,b] = 1/4*"), given=["R = K", "K = 4"]
    )


@pytest.mark.parametrize("new", ["K", "4"])
@pytest.mark.parametrize(
    "text",
    [
        "x[N,C]; w[{0},C]; y[a,c] = x[e,c]*w[r,c]*[a-e < {1}]",
        "x[N,C]; w[{0},C]; y[a,c] = x[e,c]*[e <= a]*(x[f,c]*w[r,c]*[a-f <= {1}])",
        "x[N,C]; w[{0},C]; y[a,c] = max[e](x[e,c]*w[r,c] where e <= a, a-e < {1})",
        "x[N,C]; w[{0},C]; p[a,e] = softmax[e](x[e,c]*w[r,c] where e <= a, a-e < {1}); y[a,c] = p[a,e]*x[e,c]",
    ],
)
def test_equal_sizes_are_equal_within_conditions(text: str, new: str):
    """Only the condition has the other name, or both; another bound is another layer."""
    written = text.format("R", "R")
    for other in (text.format(new, new), text.format("R", new)):
        verdict = pa.prove(written, other, given=[f"R = {new}"])
        assert verdict.status == "equal"
        assert refusal(verdict.certificate) == ""
    assert pa.prove(written, text.format("R", f"{new}+1"), given=[f"R = {new}"]).status != "equal"


def test_equal_is_said_of_no_certificate_that_the_independent_checker_refuses(monkeypatch):
    """Were a rule of rewriting wrong, its certificate would be refused, and the answer not "equal"."""
    text = "x[N,C]; y[a,b] = x[a,d]*w[d,b]"
    monkeypatch.setattr(checker(), "WORK", 1)
    small = pa.prove(text, text)
    assert (small.status, small.certificate) == ("undecided", None)
    assert "proofs/check.py refuses the certificate: too much work" in small.reason
    monkeypatch.undo()
    prover = sys.modules["polyattn.proving.prove"]
    made = prover.certificate  # type: ignore[attr-defined]
    monkeypatch.setattr(prover, "certificate", lambda *a: made(*a) | {"right": "y[n,c] = 2*x[n,c1]*w[c1,c]"})
    assert pa.prove(text, text).status == "undecided"


def test_a_certificate_of_too_many_steps_leaves_the_question_open(monkeypatch):
    monkeypatch.setattr(sys.modules["polyattn.proving.certificate"], "MAX_STEPS", 1)
    verdict = pa.prove("x[N]; y[a] = x[a]*u*u", "x[N]; y[a] = x[a]*v*v", given="u = v")
    assert verdict.status == "undecided"
    assert "more than 1 steps" in verdict.reason
