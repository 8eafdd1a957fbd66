"""Verdicts as values, as text and as JSON."""

import dataclasses
import json
import subprocess
import sys

import pytest

import polyattn as pa
from polyattn.errors import ProofError

EQUAL = pa.prove(
    "x[N,C]; y[a,b] = x[a,d]*w[d,b]",
    "x[N,C]; where r : R; y[a,b] = x[a,d]*u[d,r]*v[r,b]",
    given="w[d,b] = u[d,r]*v[r,b]",
)
DIFFERENT = pa.prove("x[N,C]; y[a,b] = N*x[a,b]", "x[N,C]; y[a,b] = x[a,b]")
UNDECIDED = pa.prove(
    "x[N,C]; y[a,b] = relu(x[a,b])*relu(x[a,b] - 1)",
    "x[N,C]; y[a,b] = x[a,b]*relu(x[a,b] - 1)",
    effort=2000,
)
VERDICTS = (EQUAL, DIFFERENT, UNDECIDED)


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda v: v.status)
def test_a_verdict_survives_json(verdict):
    assert pa.Verdict.from_json(verdict.to_json()) == verdict
    assert pa.Verdict.from_json(verdict.to_json(indent=2)) == verdict


def test_verdicts_are_values():
    again = pa.prove(DIFFERENT.left, DIFFERENT.right)
    assert again == DIFFERENT
    assert hash(again) == hash(DIFFERENT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        again.status = "equal"


def test_a_proof_prints_its_steps_and_its_bijection():
    text = str(EQUAL)
    assert text.startswith("equal at every size")
    assert "x[n,c1]*u[c1,r]*v[r,c]  by w[c,c1] = u[c,r]*v[r,c1]" in text
    assert "c1→c1" in text


def test_a_difference_prints_what_to_put_in():
    assert str(DIFFERENT) == (
        "different: at C = 1, N = 2 the output's entry [0,0] is\n"
        "  2 on the left, 1 on the right, with\n  x = [[1], [0]]"
    )


def test_an_open_question_prints_its_reason():
    assert str(UNDECIDED).startswith("undecided: the forms differ, but no difference was found")


def _changed(**changes):
    return json.dumps({**json.loads(EQUAL.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "a JSON object with"),
        ("{}", "a JSON object with"),
        (_changed(status="true"), "one of equal, different, undecided"),
        (_changed(left=3), "left is text"),
        (_changed(given="w"), "a list of texts"),
        (_changed(certificate=None), "a certificate exactly if"),
        (_changed(counterexample={}), "a counterexample exactly if"),
        (_changed(extra=1), "a JSON object with"),
        (EQUAL.to_json().replace('"coefficient": "1"', '"coefficient": NaN'), "NaN is no number"),
    ],
)
def test_bad_json_is_refused(text, message):
    with pytest.raises(ProofError, match=message):
        pa.Verdict.from_json(text)


def test_proving_imports_no_torch():
    code = (
        "import sys, polyattn as pa; pa.prove('x[N]; y[a] = x[a]', 'x[N]; y[b] = x[b]'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
