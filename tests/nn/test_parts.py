"""Parts of specifications: put together they are the whole."""

import numpy as np
import pytest

import polyattn as pa
from polyattn import catalog
from polyattn.nn.parts import part

CUTS = {
    "e_nl": [("query", "x"), ("key", "x"), ("value", "x"), ("y", "query", "key", "value")],
    "latent_gnn": [
        ("psi", "x"),
        ("phi", "x"),
        ("value", "x"),
        ("nodes", "phi", "value"),
        ("y", "psi", "adj", "nodes"),
    ],
}
SIZES = {"N": 3, "C": 4, "R": 2, "V": 3}


@pytest.mark.parametrize("name", CUTS)
def test_computed_one_after_the_other_the_parts_give_what_the_whole_gives(name):
    spec, generator = catalog.get(name), np.random.default_rng(0)
    sizes = {s: n for s, n in SIZES.items() if s in spec.sizes.names}
    shapes = {**spec.inputs, **spec.parameters}
    tensors = {t: generator.normal(size=[SIZES[s] for s in shape]) for t, shape in shapes.items()}
    wanted = spec.evaluate(tensors, sizes)
    for output, *given in CUTS[name]:
        cut = part(spec, output, *given)
        assert list(cut.inputs) == given
        needed = {s: n for s, n in sizes.items() if s in cut.sizes.names}
        tensors[output] = cut.evaluate({t: tensors[t] for t in (*cut.inputs, *cut.parameters)}, needed)
    np.testing.assert_allclose(tensors["y"], wanted)


def test_heads_stay_split_in_a_part():
    cut = part(catalog.e_nl(heads=True), "attended", "query", "key", "value")
    assert cut.inputs == {"query": ("N", "J", "R"), "key": ("N", "J", "R"), "value": ("N", "J", "S")}
    assert cut.output_shape == ("N", "J", "S")
    assert part(catalog.e_nl(heads=True), "y", "attended").parameters == {"wo": ("V", "C")}


def test_what_is_no_part_is_refused():
    with pytest.raises(pa.SpecError, match="'nodes' does not need psi"):
        part(catalog.latent_gnn(), "nodes", "psi", "phi", "value")
    for output, given in (("wg", ()), ("nodes", ("nodes",))):
        with pytest.raises(pa.SpecError, match=f"'{output}' is no definition of this specification, or is given"):
            part(catalog.latent_gnn(), output, *given)
