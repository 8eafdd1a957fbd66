"""Stored verdicts: what holds is accepted again, whatever the prover said, and nothing else."""

import json

import pytest
from typer.testing import CliRunner

import polyattn as pa
from polyattn.cli import app
from polyattn.errors import ProofError
from polyattn.proving import recheck

LEFT, RIGHT = "x[N,C]; y[a,b] = x[a,d]*w[d,b]", "x[N,C]; where r : R; y[a,b] = x[a,d]*u[d,r]*v[r,b]"
GIVEN = "w[d,b] = u[d,r]*v[r,b]"
SOFTMAX = "x[N,C]; s[a,e] = softmax[e](x[a,d]*wf[d,f]*x[e,f]); y[a,b] = s[a,e]*x[e,b]"
EQUAL = pa.prove(LEFT, RIGHT, given=GIVEN)
DIFFERENT = pa.prove("x[N,C]; y[a,b] = 2*x[a,b]", "x[N,C]; y[a,b] = x[a,b]")


def command(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("verdict", [EQUAL, DIFFERENT, pa.prove(SOFTMAX, SOFTMAX.replace("x[a,d]*wf", "2*x[a,d]*wf"))])
def test_right_verdicts_are_accepted(verdict):
    assert recheck(verdict.to_json())


def changed(verdict, **changes):
    return json.dumps({**json.loads(verdict.to_json()), **changes})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (changed(EQUAL, left=LEFT.replace("= x", "= 2*x")), "other texts"),
        (changed(EQUAL, given=[]), "other texts"),
        (changed(EQUAL, given=[GIVEN.replace("= u", "= 2*u")]), "other texts"),
        (changed(EQUAL, right="nonsense"), "no question"),
        (changed(EQUAL, certificate={**EQUAL.certificate, "steps": []}), "given and not used"),
        (changed(DIFFERENT, right=DIFFERENT.left), "agree there"),
        (changed(DIFFERENT, counterexample={**DIFFERENT.counterexample, "left": 7}), "another 'left'"),
        (changed(DIFFERENT, counterexample={**DIFFERENT.counterexample, "tensors": {"x": [[0]]}}), "agree there"),
        (changed(DIFFERENT, counterexample={**DIFFERENT.counterexample, "tensors": {"x": [["nan"]]}}), "cannot be put"),
        (changed(DIFFERENT, counterexample={**DIFFERENT.counterexample, "sizes": {"N": 10**6, "C": 1}}), "sizes are"),
        (changed(DIFFERENT, counterexample={}), "cannot be put"),
    ],
)
def test_wrong_verdicts_are_refused(text, reason):
    answer = recheck(text)
    assert not answer
    assert reason in str(answer)


def test_a_recheck_says_how_a_given_equation_is_read():
    verdict = pa.prove("x[N]; where i : N; y[n] = x[n]*A[i,i]", "x[N]; y[n] = x[n]", given="A[i,i] = 1")
    assert "given  A[i,i] = 1, read as A[i,i] summed over i is 1" in str(recheck(verdict.to_json()))


TEXTS = [EQUAL.left, EQUAL.right, *EQUAL.given]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x[a,d]*w", "2*x[a,d]*w"),
        ("x[a,d]*w", "x[a,d]*x[a,d]*w"),
        ("w[d,b]", "w[b,d]"),
        ("x[N,C]", "x[N,D]"),
        ("x[N,C]", "x[C,N]"),
        ("x[N,C]", "x[N,C]\nwhere C = G*M"),
        ("where r : R", "where r : S"),
        ("where r : R", "where r : C"),
        ("where r : R", "where r : 4"),
        ("where r : R", "where r : R\nwhere R = 4*S"),
        ("u[d,r]*v[r,b]", "u[d,r]*v[r,b]/R"),
        ("u[d,r]*v[r,b]", "u[d,r]*v[r,b] + x[a,b]"),
        ("u[d,r]*v[r,b]", "v[r,b]*u[d,r] # a comment"),
        ("y[a,b] = ", "z[a,b] = "),
        ("y[a,b] = ", "y[b,a] = "),
        ("x[a,d]", "x[a, d]"),
        ("[a,d]", "[a,e]"),
    ],
)
def test_a_verdict_whose_texts_were_edited_is_refused(old, new):
    """In each of its texts at a time, and in both sides at once."""
    tried = 0
    for left, right in ((1, 0), (0, 1), (1, 1)):
        texts = [text.replace(old, new) if k else text for k, text in zip((left, right), TEXTS, strict=False)]
        if texts != TEXTS[:2]:
            tried += 1
            answer = recheck(changed(EQUAL, left=texts[0], right=texts[1]))
            assert not answer, (str(answer), texts)
    given = GIVEN.replace(old, new)
    if given != GIVEN and "#" not in given:
        tried += 1
        assert not recheck(changed(EQUAL, given=[given]))
    assert tried


def test_keys_that_occur_twice_are_refused():
    text = EQUAL.to_json()
    for twice in (
        '{"left": "x[N]; y[a] = 2*x[a]", ' + text[1:],
        text[:-1] + ', "status": "equal"}',
        text.replace('"c": "C"', '"c": "N", "c": "C"'),
    ):
        assert twice != text
        with pytest.raises(ProofError, match="a key twice"):
            recheck(twice)


def test_an_undecided_verdict_has_nothing_to_check():
    left = "x[N]; y[a] = relu(x[a])*relu(x[a] - 1)"
    with pytest.raises(ProofError, match="nothing to check"):
        recheck(pa.prove(left, "x[N]; y[a] = x[a]*relu(x[a] - 1)", effort=2000).to_json())


def test_the_command_writes_what_it_checks(tmp_path):
    file = tmp_path / "verdict.json"
    code, output = command("prove", LEFT, RIGHT, "--given", GIVEN, "--json", file)
    assert code == 0, output
    code, output = command("check", file)
    assert code == 0
    assert output.startswith("accepted: the certificate proves")
    file.write_text(file.read_text().replace('"coefficient": "1"', '"coefficient": "2"'))
    code, output = command("check", file)
    assert code == 1
    assert output.startswith("refused")


def test_the_command_refuses_files_that_it_cannot_use(tmp_path):
    assert command("check", tmp_path / "none.json")[0] == 2
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert command("check", tmp_path / "bytes.json")[0] == 2
    assert command("prove", LEFT, LEFT, "--json", tmp_path / "no" / "folder.json")[0] == 2
