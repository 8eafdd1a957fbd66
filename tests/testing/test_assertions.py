"""`assert_equivalent` passes what is proved, and its failure shows why."""

import subprocess
import sys

import pytest

import polyattn as pa
from polyattn.errors import ProofError

NL = "x[N,C]; y[a,b] = x[a,d]*wf[d,f]*x[e,f]*x[e,b]"
SOFTMAX = "x[N,C]; s[a,e] = softmax[e](x[a,d]*x[e,d]); y[a,b] = s[a,e]*x[e,b]"


def test_what_is_equal_passes_and_gives_its_verdict():
    assert pa.testing.assert_equivalent(NL, NL.replace("d", "k")).certificate
    assert pa.testing.assert_equivalent(NL, NL.replace("wf[d,f]", "u[d,f]"), given="wf[d,f] = u[d,f]")


def test_a_failure_shows_both_forms_the_difference_and_the_counterexample():
    with pytest.raises(AssertionError) as failure:
        pa.testing.assert_equivalent(f"{NL} + x[a,b]", f"{NL} + 2*x[a,b]")
    assert str(failure.value).split("\n") == [
        "the two specifications differ",
        "  left, expanded   y[n,c] = x[n,c1]*wf[c1,c2]*x[n1,c2]*x[n1,c] + x[n,c]",
        "  right, expanded  y[n,c] = x[n,c1]*wf[c1,c2]*x[n1,c2]*x[n1,c] + 2*x[n,c]",
        "  only left        x[n,c]",
        "  only right       2*x[n,c]",
        "different: at C = 1, N = 1 the output's entry [0,0] is",
        "  1 on the left, 2 on the right, with",
        "  x = [[1]]",
        "  wf = [[0]]",
    ]


def test_functions_are_shown():
    with pytest.raises(AssertionError, match=r"where +f1\[n,n1\] = softmax\[n1\]\(x\[n,c\]\*x\[n1,c\]\)"):
        pa.testing.assert_equivalent(SOFTMAX, SOFTMAX.replace("softmax[e](", "softmax[e](2*"))


def test_what_is_undecided_fails_too():
    once = "x[N]; z[N]; y[a] = abs(x[a]*x[a] - z[a]*z[a])"
    twice = "x[N]; z[N]; y[a] = abs(x[a] + z[a])*abs(x[a] - z[a])"
    with pytest.raises(AssertionError, match=r"are not proved equal(.|\n)*undecided"):
        pa.testing.assert_equivalent(once, twice)


def test_questions_without_sense_are_errors_and_no_failures():
    with pytest.raises(ProofError):
        pa.testing.assert_equivalent(NL, "z[N]; y[a] = z[a]")


def test_the_assertion_needs_no_hypothesis():
    code = (
        "import sys; sys.modules['hypothesis'] = None; import polyattn as pa;"
        f"pa.testing.assert_equivalent({NL!r}, {NL!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
