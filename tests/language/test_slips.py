"""Slips of case, and parameters that would need a number of positions."""

from dataclasses import replace

import pytest

import polyattn as pa


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x[N,C]; y[a,b] = X[a,d]*w[d,b]", "'X' is declared nowhere and differs from the input 'x' only by case"),
        ("Z[M,C]; y[a] = Z[a,b]*z[b]", "'z' is declared nowhere and differs from the input 'Z' only by case"),
        (
            "x[N,C]; key[a,b] = x[a,d]*wk[d,b]; y[a,b] = key[a,b]*Key[a,b]",
            "'Key' is declared nowhere and differs from the definition 'key' only by case",
        ),
        ("x[N,C]; y[a,b] = 1/n*x[a,b]", "'n' is declared nowhere and differs from the size 'N' only by case"),
        (
            "x[N,C]; where x : parameter; y[a,b] = x[a,b]",
            "'x' is declared a parameter, but is not",
        ),
        (
            "x[N,C]; where k : parameter; y[a,b] = x[a,b]",
            "'k' is declared a parameter, but is not",
        ),
    ],
)
def test_a_slip_of_case_is_refused_at_its_place(text, reason):
    with pytest.raises(pa.SpecError, match=reason) as caught:
        pa.Spec(text)
    assert "^" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "x[N,C]; where X : parameter; y[a,b] = x[a,d]*X[d,b]",
        "x[N,C]; where X, n : parameter; y[a,b] = n*x[a,d]*X[d,b]",
        # A tensor with slots is not taken for a size: the weight of a convolution over H and W is called w.
        "x[H,W,C]; where u, v : -1..1; y[i,j,b] = x[i+u,j+v,c]*w[u,v,c,b]",
    ],
)
def test_a_name_that_is_meant_is_kept_and_printed(text):
    spec = pa.Spec(text)
    assert pa.Spec(str(spec)) == spec


def test_a_tree_with_such_names_prints_a_text_that_parses():
    spec = pa.Spec("x[N,C]; where X : parameter; y[a,b] = x[a,d]*X[d,b]")
    assert pa.Spec(replace(spec.statements, parameters=())) == spec
    assert "where X : parameter" in str(spec.derivative("x", seed="dy"))
    assert "parameter" not in str(spec.substitute("X[d,b] = u[d]*v[b]"))


def test_a_layer_names_the_remedies_for_a_parameter_of_one_number_of_positions():
    text = "x[N,C]; y[a,b] = k[a,e]*x[e,b]"
    with pytest.raises(pa.SizeError, match=r"'where k : parameter'.*\('k\[N,N\]'\)"):
        pa.nn.Layer(text, {"C": 2})
    meant = "x[N,C]; where k : parameter; y[a,b] = k[a,e]*x[e,b]"
    with pytest.raises(pa.SizeError, match=r'give sizes=\{"N": ...\}$'):
        pa.nn.Layer(meant, {"C": 2})
    assert pa.nn.Layer(meant, {"N": 3, "C": 2}).k.shape == (3, 3)


def test_a_size_called_b_is_not_taken_for_the_batch():
    plan = pa.plan("x[N,C]; where b : B; y[a,b] = x[a,c]*w[c,b]", {"N": 5, "C": 3, "B": 2})
    assert str(plan.complexity) == "B*C*N*batch"
    assert plan.macs == 5 * 3 * 2
    assert "for batch=1 B=2" in str(plan)
    with pytest.raises(pa.SizeError, match="calls the batch B"):
        pa.study.complexity({"mine": pa.Spec("x[N,C]; where b : B; y[a,b] = x[a,c]*w[c,b]")}, N=5, C=3, B=2)
