"""What every entry of the catalogue is, and how entries are found."""

import re
from pathlib import Path

import pytest

import polyattn as pa
from polyattn import catalog

TEXT = Path(__file__).with_name("equations.txt").read_text("utf-8")
EQUATIONS = dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", TEXT, re.MULTILINE | re.DOTALL))
LINEAR_AS_WRITTEN = ["a2_net", "cgnl", "e_nl", "glore", "latent_gnn"]
SOFTMAX = ["a2_net", "axial", "e_nl", "nl"]


def test_the_names_are_the_files_of_the_folder_sorted():
    files = [f for f in Path(catalog.__file__).parent.glob("*/*.py") if f.stem != "__init__"]
    assert catalog.names() == tuple(sorted(f.stem for f in files))
    assert {name: catalog.entry(name).family for name in catalog.names()} == {f.stem: f.parent.name for f in files}
    assert set(catalog.names()) >= {"nl", "poly_nl", "e_nl", "ba_transform", "ba_transform_block", "tesa", "latent_gnn"}


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_a_third_order_entry_is_a_cubic_layer_that_keeps_the_shape_and_names_its_source(name):
    function, spec = getattr(catalog, name), catalog.get(name)
    (shape,) = spec.inputs.values()
    assert type(spec) is pa.Spec
    assert spec.is_polynomial
    assert spec.polynomial().degrees == ((1, 2, 3) if name.startswith("pi_net") else (3,))
    assert spec.output_shape == shape
    assert spec == function() == pa.Spec(str(spec))


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_systems_are_their_equations(name):
    written, entry = pa.Spec(EQUATIONS[name]), catalog.get(name)
    assert entry.polynomial() == written.polynomial()
    assert entry.parameters == written.parameters
    assert entry.inputs == written.inputs


def test_the_equations_are_all_there():
    assert list(EQUATIONS) == ["nl", "poly_nl", "e_nl", "ba_transform", "ba_transform_block", "tesa", "latent_gnn"]


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_changes_the_functions_and_neither_shapes_nor_parameters(name):
    plain, normalised = catalog.get(name), catalog.get(name, softmax=True)
    assert not normalised.is_polynomial
    assert normalised.parameters == plain.parameters
    assert normalised.output_shape == plain.output_shape


@pytest.mark.parametrize("name", LINEAR_AS_WRITTEN)
def test_no_intermediate_of_the_linear_systems_has_two_positions(name):
    spec = catalog.get(name)
    definitions = spec.statements.definitions
    assert len(definitions) > 2
    assert all(spec.shape(d.name).count(("N",)) <= 1 for d in definitions)


def test_the_similarity_is_the_intermediate_of_nl_with_softmax():
    assert catalog.nl(softmax=True).shape("similarity") == (("N",), ("N",))


@pytest.mark.parametrize(("wrong", "near"), [("polynl", "poly_nl"), ("a2net", "a2_net"), ("GloRe", "glore")])
def test_an_unknown_name_is_refused_with_its_nearest(wrong, near):
    with pytest.raises(pa.SpecError, match=rf"'{wrong}'.*did you mean .*\b{near}\b"):
        catalog.get(wrong)


def test_a_name_like_no_other_is_refused_with_all_names():
    with pytest.raises(pa.SpecError, match=r"a2_net, .*aft_full, .*tesa"):
        catalog.get("qqq")


def test_axial_knows_two_axes():
    assert catalog.get("axial", axis="height") == catalog.axial()
    with pytest.raises(pa.SpecError, match="'depth'"):
        catalog.axial("depth")
