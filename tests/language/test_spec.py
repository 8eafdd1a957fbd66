"""`Specification`: the published layers, equality, copies, and further statements."""

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import SpecError
from polyattn.language import Specification
from polyattn.testing import edited, renamed, respaced, specification_texts

TEXTS = {
    "nl": """
        x[N,C]
        y[a,b] = x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]
    """,
    "poly_nl": """
        x[N,C]
        y[a,b] = 1/N * x[e,h]*w1[h,d] * x[e,f]*w2[f,d] * x[a,d]*w3[d,b]
    """,
    "e_nl": """
        x[N,C]; where r : R; where s : V
        query[a,r] = x[a,d]*wq[d,r]
        key[e,r] = x[e,f]*wk[f,r]
        value[e,s] = x[e,h]*wv[h,s]
        context[r,s] = 1/N * key[e,r]*value[e,s]
        y[a,b] = query[a,r]*context[r,s]*wo[s,b]
    """,
    "ba_transform": """
        x[H,W,C]; where C = G*M; where m : K
        row[i,m] = 1/W * x[i,j,c]*wf[c,m]            # 1x1 convolution, then row pooling
        col[j,m] = 1/H * x[i,j,c]*wf[c,m]
        p[g,i,k] = row[u,m]*wp[g,i,k,u,m]            # H x 1 convolution with a global field
        q[g,l,j] = col[v,m]*wq[g,l,j,v,m]
        y[i,j,(g n)] = p[g,i,k] * x[k,l,(g n)] * q[g,l,j]
    """,
    "ba_transform_block": """
        x[H,W,C]; where C = G*M; where H = S*U; where W = S*V; where m : K
        row[i,m] = 1/U/W * x[(i u),j,c]*wf[c,m]
        col[j,m] = 1/V/H * x[i,(j v),c]*wf[c,m]
        p[g,i,k] = row[t,m]*wp[g,i,k,t,m]
        q[g,l,j] = col[t,m]*wq[g,l,j,t,m]
        y[(i u),(j v),(g n)] = p[g,i,k] * x[(k u),(l v),(g n)] * q[g,l,j]      # P is P_s ⊗ I
    """,
    "tesa": """
        x[H,W,C]; where r : R
        y[i,j,b] = alpha1 * x[i,j,d]*wq1[d,r]*x[k,l,f]*wk1[f,r] * x[k,l,h]*wv1[h,b]
                 + alpha2 * x[i,v,d]*wq2[d,r]*x[k,v,f]*wk2[f,r] * x[k,j,h]*wv2[h,b]
                 + alpha3 * x[u,j,d]*wq3[d,r]*x[u,l,f]*wk3[f,r] * x[i,l,h]*wv3[h,b]
    """,
    "latent_gnn": """
        x[N,C]; where k, l : R
        y[a,b] = 1/N * x[a,d]*wpsi[d,k] * adj[k,l] * x[e,f]*wphi[f,l] * x[e,h]*wg[h,b]
    """,
}
PARAMETERS = {
    "nl": {"wf": ("C", "C"), "wg": ("C", "C")},
    "poly_nl": {"w1": ("C", "C"), "w2": ("C", "C"), "w3": ("C", "C")},
    "e_nl": {"wq": ("C", "R"), "wk": ("C", "R"), "wv": ("C", "V"), "wo": ("V", "C")},
    "ba_transform": {"wf": ("C", "K"), "wp": ("G", "H", "H", "H", "K"), "wq": ("G", "W", "W", "W", "K")},
    "ba_transform_block": {"wf": ("C", "K"), "wp": ("G", "S", "S", "S", "K"), "wq": ("G", "S", "S", "S", "K")},
    "tesa": {
        f"{name}{branch}": shape
        for branch in "123"
        for name, shape in {"alpha": (), "wq": ("C", "R"), "wk": ("C", "R"), "wv": ("C", "C")}.items()
    },
    "latent_gnn": {"wpsi": ("C", "R"), "adj": ("R", "R"), "wphi": ("C", "R"), "wg": ("C", "C")},
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_published_layer_has_its_parameters_and_the_shape_of_its_input(name):
    spec = Specification(TEXTS[name])
    assert spec.parameters == PARAMETERS[name]
    assert list(spec.parameters) == list(PARAMETERS[name])  # in the order of their first use
    assert (spec.output_shape,) == tuple(spec.inputs.values())
    assert not spec.has_functions
    assert Specification(str(spec)) == spec


def test_what_a_specification_tells_of_itself():
    spec = Specification("x[N,C]; z[K]; where C = G*M; t[n,g] = x[n,(g m)]*w[m]; y[n] = t[n,g]*z[k]*v[k,g]*s")
    assert spec.inputs == {"x": ("N", "C"), "z": ("K",)}
    assert spec.parameters == {"w": ("M",), "v": ("K", "G"), "s": ()}
    assert (spec.output, spec.output_shape) == ("y", ("N",))
    assert spec.shape("t") == (("N",), ("G",))
    assert spec.shape("x") == (("N",), ("G", "M"))
    assert spec.sizes.names == ("N", "C", "K", "G", "M")


@pytest.mark.parametrize(
    ("right", "answer"),
    [("x[a,b]", False), ("relu(x[a,b])", True), ("softmax[b](x[a,b])", True), ("mean[e](x[a,b]*x[e,b])", False)],
)
def test_a_mean_is_a_sum_and_other_functions_are_functions(right, answer):
    assert Specification(f"x[N,C]; y[a,b] = {right}").has_functions is answer


@given(specification_texts())
def test_a_specification_prints_a_text_that_parses_to_an_equal_one(text):
    spec = Specification(text)
    again = Specification(str(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert str(again) == str(spec) == text
    assert again.parameters == spec.parameters


@given(st.data())
def test_equality_is_that_of_the_trees(data):
    text = data.draw(specification_texts(max_intermediates=1))
    spec = Specification(text)
    assert Specification(data.draw(respaced(text)).encode()) == spec
    assert Specification(data.draw(edited(text))) != spec
    other = data.draw(renamed(text))
    assert (Specification(other) == spec) == (other == text)


def test_specifications_are_keys_of_dictionaries_and_sets():
    first, second = Specification("x[N]; y[a] = x[a]"), Specification("x[N] ; y[a] =\n x[a]")
    other = Specification("x[N]; y[a] = 2*x[a]")
    assert {first: 1, second: 2, other: 3} == {first: 2, other: 3}
    assert first != str(first)


@pytest.mark.parametrize("name", TEXTS)
def test_copies_and_pickles_are_equal(name):
    spec = Specification(TEXTS[name])
    spec.sizes.solve({})  # fills caches
    for again in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert again == spec
        assert hash(again) == hash(spec)
        assert again.parameters == spec.parameters
        assert again.sizes.atomic == spec.sizes.atomic


def test_a_spec_error_survives_pickling():
    with pytest.raises(SpecError) as caught:
        Specification("x[N,C]; y[a,b] = x[a,b")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.line, again.column) == (str(caught.value), 1, 19)


def test_a_specification_is_immutable():
    spec = Specification("x[N]; y[a] = x[a]")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.statements = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.statements.definitions[0].target.tensor = "z"


def test_repr_is_the_call_that_makes_it():
    spec = Specification("x[N,C]; y[a,b] = x[a,d]*w[d,b]")
    assert repr(spec) == r"Specification('x[N,C]\ny[a,b] = x[a,d]*w[d,b]')"
    assert eval(repr(spec)) == spec


def test_a_subclass_stays_itself():
    class Special(Specification):
        pass

    spec = Special("x[N,C]; y[a,b] = x[a,d]*w[d,b]")
    assert type(spec.with_statements("w[d,b] = u[d,r]*v[r,b]", "where r : R")) is Special
    assert type(Special.from_einsum("ab->ab", "x", input="x[N,C]")) is Special


class TestWithStatements:
    SPEC = Specification("x[N,C]; t[a,b] = x[a,d]*wf[d,b]; y[a,b] = t[a,d]*wg[d,b]*wf[b,b]")

    def test_a_definition_of_a_parameter_stands_before_its_first_use(self):
        spec = self.SPEC.with_statements("wf[d,f] = wq[d,r]*wk[f,r]", "where r : R")
        assert [d.name for d in spec.statements.definitions] == ["wf", "t", "y"]
        assert spec.parameters == {"wq": ("C", "R"), "wk": ("C", "R"), "wg": ("C", "C")}

    def test_definitions_may_use_each_other(self):
        spec = self.SPEC.with_statements("u[d] = v[d]; wg[d,b] = u[d]*u[b]")
        assert [d.name for d in spec.statements.definitions] == ["t", "u", "wg", "y"]
        assert spec.parameters == {"wf": ("C", "C"), "v": ("C",)}

    def test_inputs_and_splits_are_added(self):
        spec = self.SPEC.with_statements("z[K]\nwhere C = G*M\nwg[(g m),b] = z[k]*u[k,g,m,b]")
        assert spec.inputs == {"x": ("N", "C"), "z": ("K",)}
        assert spec.parameters["u"] == ("K", "G", "M", "C")

    def test_the_same_where_may_be_said_again(self):
        spec = self.SPEC.with_statements("where r : R", "wf[d,f] = wq[d,r]*wk[f,r]")
        assert spec.with_statements("where r : R") == spec

    def test_no_statements_change_nothing(self):
        assert self.SPEC.with_statements() == self.SPEC
