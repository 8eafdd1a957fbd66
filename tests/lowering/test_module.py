"""Facts of generated modules: they can be copied and stored, and are then the same in every respect."""

import copy
import io
import pickle

import pytest
import torch

from polyattn import catalog, lower, plan, verify
from polyattn.lowering import lower_backward, training_function
from polyattn.lowering.graphs import lower_with_kept

SIZES = {"N": 6, "C": 4, "R": 2, "V": 2, "H": 4, "W": 6, "G": 2, "K": 2}


def stored(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", ["poly_nl", "ba_transform", "tesa"])
@pytest.mark.parametrize("make", [lower, lower_with_kept, lower_backward])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), stored])
def test_a_copied_and_a_stored_graph_has_the_same_code_and_plan(name: str, make, again):
    spec = catalog.get(name)
    module = make(plan(spec, {n: SIZES[n] for n in spec.sizes.names if n in SIZES}, "training"))
    for twin in (again(module), again(again(module).eval())):
        assert twin is not module
        assert twin.code == module.code
        assert twin.meta["plan"] == module.meta["plan"]
        assert [n.meta.get("coefficient") for n in twin.graph.nodes] == [
            n.meta.get("coefficient") for n in module.graph.nodes
        ]
    assert not again(module.eval()).training
    module.train()


def test_a_loaded_graph_computes_the_same_and_is_verified_like_any_other():
    module = lower(plan(catalog.poly_nl(), {"B": 2, "N": 6, "C": 4}))
    twin = pickle.loads(pickle.dumps(module))
    x, *w = torch.randn(2, 6, 4), *(torch.randn(4, 4) for _ in range(3))
    assert torch.equal(twin(x, *w), module(x, *w))
    assert verify(twin, level="modular")


def test_what_was_changed_in_a_graph_is_stored_with_it():
    module = copy.deepcopy(lower(plan(catalog.poly_nl(), {"B": 2, "N": 6, "C": 4})))
    (output,) = (n for n in module.graph.nodes if n.op == "output")
    with module.graph.inserting_before(output):
        output.args = (module.graph.call_function(torch.neg, output.args),)
    module.recompile()
    twin = pickle.loads(pickle.dumps(module))
    x, *w = torch.randn(2, 6, 4), *(torch.randn(4, 4) for _ in range(3))
    assert torch.equal(twin(x, *w), module(x, *w))
    assert "torch.neg" in twin.code


@pytest.mark.parametrize("make", [lower, lower_with_kept, lower_backward])
def test_a_change_of_one_graph_leaves_later_graphs_and_layers_as_they_are(make):
    planned = plan(catalog.poly_nl(), {"B": 2, "N": 6, "C": 4}, "training")
    module, layer = make(planned), training_function(planned)
    x, *w = torch.randn(2, 6, 4), *(torch.randn(4, 4, requires_grad=True) for _ in range(3))
    before, output = module.code, layer(x, *w)
    for node in list(module.graph.nodes):
        if node.target is torch.matmul:
            node.target = torch.add
            node.meta["coefficient"] = 3
    module.meta["plan"] = None
    module.recompile()
    assert module.code != before
    twin = make(planned)
    assert twin.code == before
    assert twin.meta["plan"] is not None
    assert type(twin) is not type(module)
    assert [n.meta.get("coefficient") for n in twin.graph.nodes].count(3) == 0
    assert torch.equal(training_function(planned)(x, *w), output)
