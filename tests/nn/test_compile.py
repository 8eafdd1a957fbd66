"""Layers of the catalogue in compiled, exported, copied and stored form."""

import io

import pytest
import torch

from polyattn import catalog
from tests.drawing import mostly_nightly

from .forms import assert_state_carries_it, assert_twins_compute_the_same_and_share_nothing, value_and_gradients
from .layers import EACH_MECHANISM, WITH_FUNCTIONS, image, layer

pytestmark = pytest.mark.usefixtures("_nothing_compiled_before")


@pytest.mark.parametrize("name", mostly_nightly([*catalog.names("third_order"), *WITH_FUNCTIONS], EACH_MECHANISM))
def test_compiled_in_one_graph_a_layer_has_the_same_values_and_gradients(name, planned_backward):
    # In float64: a compiler may choose another plan, whose float32 differs in the last digits.
    module = layer(name, dtype=torch.float64)
    x = image(name, dtype=torch.float64).requires_grad_()
    leaves = (x, *module.parameters())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(value_and_gradients(compiled, x, leaves), value_and_gradients(module, x, leaves))


@pytest.mark.slow
def test_inductor_compiles_a_layer_with_its_backward_pass():
    module, x = layer("poly_nl"), image("poly_nl").requires_grad_()
    leaves = (x, *module.parameters())
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(value_and_gradients(compiled, x, leaves), value_and_gradients(module, x, leaves))


def test_a_compiled_layer_is_compiled_again_once_for_all_other_batches():
    module, graphs = layer("ba_transform"), []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for batch in (8, 5, 3, 7, 2):
        x = image("ba_transform", batch)
        torch.testing.assert_close(compiled(x), module(x))
    assert len(graphs) == 2


def test_a_compiled_layer_follows_its_input_to_other_maps():
    module = layer("poly_nl")
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for shape in ((2, 4, 2, 3), (3, 4, 5, 7), (1, 4, 9), (2, 4, 2, 2, 2)):
            x = torch.randn(shape)
            torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("name", mostly_nightly([*catalog.names("third_order"), "bat_normalised"], EACH_MECHANISM))
def test_exported_a_layer_has_the_same_values_for_every_batch(name):
    module = layer(name).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (image(name),), dynamic_shapes=batch, strict=False).module()
    for batch in (2, 5):
        x = image(name, batch)
        torch.testing.assert_close(program(x), module(x))


def test_an_exported_program_is_stored_and_loaded_without_this_library_knowing_it():
    module, x, file = layer("e_nl").eval(), image("e_nl"), io.BytesIO()
    with torch.no_grad():
        program = torch.export.export(module, (x,))
        torch.export.save(program, file)
        file.seek(0)
        torch.testing.assert_close(torch.export.load(file).module()(x), module(x))
    operators = {n.target for n in program.graph.nodes if n.op == "call_function"}
    assert operators
    assert {str(operator).split(".")[0] for operator in operators} == {"aten"}


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_a_copied_and_a_pickled_layer_compute_the_same_and_share_nothing(name):
    assert_twins_compute_the_same_and_share_nothing(layer(name), image(name))


@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_a_state_dict_has_the_names_of_the_equation_and_carries_the_layer(name):
    module = layer(name)
    assert set(module.state_dict()) == {*module.spec.parameters, "alpha", "beta"}
    assert_state_carries_it(module, layer(name, beta=0.1), image(name))
