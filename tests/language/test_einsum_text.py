"""Classic einsum text says the same as the equation that it abbreviates."""

from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import SpecError
from polyattn.language import Specification


def test_the_nonlocal_layer_of_the_documentation():
    spec = Specification.from_einsum("ad,ef,eh,df,hb->ab", "x,x,x,wf,wg", input="x[N,C]")
    assert spec == Specification("x[N,C]; y[a,b] = x[a,d]*x[e,f]*x[e,h]*wf[d,f]*wg[h,b]")
    assert spec.parameters == {"wf": ("C", "C"), "wg": ("C", "C")}


def test_without_an_arrow_the_output_has_the_letters_that_occur_once_sorted():
    spec = Specification.from_einsum("ca,cd", "x,w", input="x[N,C]", where="d : D")
    assert spec == Specification("x[N,C]; where d : D; y[a,d] = x[c,a]*w[c,d]")


def test_an_empty_output_is_a_scalar_and_an_empty_operand_a_scalar_parameter():
    spec = Specification.from_einsum("ab,,ab->", "x,s,x", input="x[N,C]")
    assert spec == Specification("x[N,C]; y = x[a,b]*s*x[a,b]")


def test_spaces_do_not_matter():
    spaced = Specification.from_einsum(" a d , d b -> a b ", " x , w ", input="x[N,C]")
    assert spaced == Specification.from_einsum("ad,db->ab", "x,w", input="x[N,C]")


def test_capital_letters_are_indices_of_their_own():
    spec = Specification.from_einsum("aA,Ab->ab", "x,w", input="x[N,C]")
    assert spec == Specification("x[N,C]; y[a,b] = x[a,a_]*w[a_,b]")


def test_several_inputs_and_wheres():
    spec = Specification.from_einsum("nc,cr,k->nrk", "x,w,z", input="x[N,C]; z[K]", where=("where r : R", " C = G*M"))
    assert spec == Specification("x[N,C]; z[K]; where r : R; where C = G*M; y[n,r,k] = x[n,c]*w[c,r]*z[k]")


@pytest.mark.parametrize(
    ("equation", "operands", "output"),
    [("ab->ab", "x", "y"), ("ab,ab->ab", "x,y", "z"), ("yb->yb", "x", "z"), ("ab,ab,z->ab", "x,y,y0", "y1")],
)
def test_the_output_has_a_name_that_is_free(equation, operands, output):
    where = "z : Z" if "z" in equation else ()
    assert Specification.from_einsum(equation, operands, input="x[N,C]", where=where).output == output


@given(st.text(alphabet=ascii_letters + ",->. \n[", max_size=20), st.sampled_from(["x", "x,w", "x,x,w"]))
def test_any_equation_is_a_specification_or_a_spec_error(equation, operands):
    try:
        spec = Specification.from_einsum(equation, operands, input="x[N,C]")
    except SpecError:
        return
    assert spec.inputs == {"x": ("N", "C")}


@given(st.text(max_size=30))
def test_operands_are_names_and_not_code(operands):
    try:
        spec = Specification.from_einsum("ab->ab", operands, input="x[N,C]")
    except SpecError:
        return
    assert spec.statements.definitions[-1].name == "y"


@pytest.mark.parametrize("operand", ["w*v", "w;z", "", "where", "w[d]", "_w", "9", "é", "relu"])
def test_an_operand_that_is_no_name_is_refused(operand):
    with pytest.raises(SpecError, match="operand 2 of"):
        Specification.from_einsum("ad,df->af", f"x,{operand}", input="x[N,C]")


def test_the_output_is_not_called_like_an_input():
    spec = Specification.from_einsum("ad,df->af", "x,w", input="x[N,C]; y[N]")
    assert spec.output == "z"
