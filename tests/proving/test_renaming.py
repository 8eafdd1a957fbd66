"""Equality up to the names of parameters that one side alone has: what is found, what is claimed, what is refused."""

import json
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import polyattn as pa
from polyattn.proving import Verdict, recheck
from polyattn.testing import assert_equivalent, specifications
from proofs import check
from tests.proofs.mutants import mutant

POLY = "x[N,C]; y[a,b] = 1/N * x[e,h]*u[h,d] * x[e,f]*v[f,d] * x[a,d]*w[d,b]"
ATTENTION = "x[N,C]; where r : R; p[a,e] = softmax[e](x[a,c]*{0}[c,r]*x[e,d]*{1}[d,r]); y[a,b] = p[a,e]*x[e,c]*{2}[c,b]"


def heads(names):
    terms = (f"x[a,c]*{q}[c,r]*x[e,d]*{k}[d,r]*x[e,f]*{v}[f,b]" for q, k, v in names)
    return f"x[N,C]; where r : R; y[a,b] = {' + '.join(terms)}"


def test_poly_nl_with_other_names_is_equal_up_to_them():
    verdict = pa.prove(POLY, pa.catalog.poly_nl())
    assert verdict
    assert verdict.renaming == {"u": "w1", "v": "w2", "w": "w3"}
    assert verdict.given == ()
    assert str(verdict).startswith("equal if u = w1, v = w2, w = w3, at every size: 1 monomial")
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert recheck(verdict.to_json())
    assert assert_equivalent(POLY, pa.catalog.poly_nl()).renaming == verdict.renaming


def test_names_on_both_sides_are_one_tensor_and_are_not_renamed():
    first, second = (ATTENTION.format(*names) for names in (("a", "b", "v"), ("b", "a", "v")))
    assert pa.prove(first, second).status == "different"  # queries and keys exchanged
    assert pa.prove(first, ATTENTION.format("q", "b", "v")).renaming == {"a": "q"}
    assert pa.prove(ATTENTION.format("b", "k", "v"), ATTENTION.format("q", "b", "v")).status == "different"
    assert pa.prove(first, first).renaming == {}


def test_what_no_renaming_makes_equal_is_different():
    others = ("x[a,c]*w[b,c]", "x[a,c]*w[c,d]*z[d,b]", "2*x[a,c]*w[c,b]", "x[e,c]*w[c,b]", "w[a,e]*x[e,b]")
    for text in others:
        verdict = pa.prove("x[N,C]; y[a,b] = x[a,c]*u[c,b]", f"x[N,C]; where a : N; where d : C; y[a,b] = {text}")
        assert (verdict.status, verdict.renaming) == ("different", {})
    # u and v would both be w.
    assert not pa.prove("x[N,C]; y[a,b] = x[a,b] * (u + v)", "x[N,C]; y[a,b] = x[a,b] * (w + w)")


def test_many_heads_are_matched_head_by_head():
    mine = [(f"q{i}", f"k{i}", f"v{i}") for i in range(5)]
    theirs = [(f"Q{5 * i % 7}", f"K{i}", f"V{3 * i % 7}") for i in range(5)]
    found = pa.prove(heads(mine), heads(theirs)).renaming
    assert {tuple(found[n] for n in head) for head in mine} == set(theirs)


def test_a_tensor_of_a_given_equation_keeps_its_name():
    nl = "x[N,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f] * x[e,h]*u[h,b]"
    other = "x[N,C]; where r : R; y[a,b] = x[a,d]*wq[d,r]*wk[f,r]*x[e,f] * x[e,h]*v[h,b]"
    verdict = pa.prove(nl, other, given="wf[d,f] = wq[d,r]*wk[f,r]")
    assert (verdict.renaming, verdict.given) == ({"u": "v"}, ("wf[d,f] = wq[d,r]*wk[f,r]",))
    assert recheck(verdict.to_json())
    assert pa.prove(nl, nl.replace("u[", "v["), given="u[i,j] = u[j,i]").status != "equal"


@settings(max_examples=15)
@given(data=st.data())
def test_a_generated_specification_is_itself_under_other_names_and_the_certificate_says_so(data):
    spec = data.draw(specifications(max_inputs=2))
    names = {n: f"new{k}" for k, n in enumerate(data.draw(st.permutations(list(spec.parameters))))}
    kept = data.draw(st.sets(st.sampled_from(list(names)))) if names else set()
    names = {old: new for old, new in names.items() if old not in kept}
    pattern = rf"\b({'|'.join(names)})\b" if names else r"(?!)"
    text = re.sub(pattern, lambda m: names[m[1]], str(spec))
    verdict = pa.prove(spec, text)
    occurring = {n for n in names if n in spec.polynomial().tensors}
    assert verdict
    assert set(verdict.renaming) == occurring
    assert set(verdict.renaming.values()) == {names[n] for n in occurring}
    assert pa.prove(spec, text, given=[_equation(spec, *pair) for pair in verdict.renaming.items()])


def _equation(spec, old, new):
    slots = ",".join(f"i{k}" for k in range(len(spec.shape(old))))
    return f"{old}[{slots}] = {new}[{slots}]" if slots else f"{old} = {new}"


def test_the_checker_refuses_other_renamings():
    certificate = pa.prove(POLY, pa.catalog.poly_nl()).certificate
    assert check.check(json.dumps(certificate))["renaming"] == [
        "u[c,c1] = w1[c,c1]", "v[c,c1] = w2[c,c1]", "w[c,c1] = w3[c,c1]",
    ]  # fmt: skip
    for equations in (
        ["u[c,c1] = w2[c,c1]", *certificate["renaming"][1:]],
        ["u[c,c1] = w1[c1,c]", *certificate["renaming"][1:]],
        ["u[c,c1] = 2*w1[c,c1]", *certificate["renaming"][1:]],
        certificate["renaming"][:2],
    ):
        with pytest.raises(check.Refused):
            check.check(json.dumps({**certificate, "renaming": equations}))
    random = Random(0)
    for _ in range(60):
        changed = mutant(certificate, random)
        if json.dumps(changed) != json.dumps(certificate):
            with pytest.raises(check.Refused):
                check.check(json.dumps(changed))


def test_the_checker_refuses_a_renaming_of_what_both_sides_have():
    """A renaming of w by itself under another name would hide that w occurs on both sides."""
    one, other = (f"x[N,C]; where d : C; y[a,b] = x[a,c]*{name}[c,d]*w[d,b]" for name in "uw")
    found = pa.prove(one, other, given="u[c,d] = w[c,d]")
    certificate = found.certificate
    (equation,) = certificate["given"]
    with pytest.raises(check.Refused, match="elsewhere"):
        check.check(json.dumps({**certificate, "given": [], "renaming": [equation["equation"]]}))


def test_a_stored_verdict_with_another_renaming_is_refused():
    data = json.loads(pa.prove(POLY, pa.catalog.poly_nl()).to_json())
    data["renaming"] = {"u": "w2", "v": "w1", "w": "w3"}
    assert not recheck(json.dumps(data))
    for wrong in ({"u": 1}, [], None):
        with pytest.raises(pa.ProofError, match="renaming"):
            Verdict.from_json(json.dumps({**data, "renaming": wrong}))
