"""One program of a layer for every size: eager, compiled, exported and traced."""

import io
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

import polyattn as pa
from polyattn.planning import BATCH
from polyattn.runtime import function, plan_cache

CHANNELS = 8
SHAPES = [(2, 6, 7), (3, 7, 6), (1, 9, 14), (5, 30, 21), (2, 3, 2)]


def maps(dtype=torch.float32):
    return [torch.randn(b, CHANNELS, h, w, dtype=dtype) for b, h, w in SHAPES]


def poly_nl(dtype=torch.float32):
    torch.manual_seed(0)
    return pa.nn.PolyNL(CHANNELS, beta=1.0, dtype=dtype)


def by_hand(layer, x):
    """Poly-NL, Eq. 6, with the residual."""
    rows = x.flatten(2).transpose(1, 2)
    context = ((rows @ layer.w1) * (rows @ layer.w2)).mean(1, keepdim=True)
    return x + ((context * rows) @ layer.w3).transpose(1, 2).reshape(x.shape)


def test_few_programs_compute_a_layer_and_its_gradients_at_all_sizes():
    plan_cache.forget()
    layer = poly_nl(torch.float64)
    for x in maps(torch.float64):
        y, wanted = layer(x), by_hand(layer, x)
        torch.testing.assert_close(y, wanted)
        leaves = (layer.w1, layer.w2, layer.w3)
        found = torch.autograd.grad(y.square().mean(), leaves)
        torch.testing.assert_close(found, torch.autograd.grad(wanted.square().mean(), leaves))
        with torch.no_grad():
            torch.testing.assert_close(layer(x), wanted)
    with torch.no_grad():
        for side in range(3, 33):
            layer(torch.randn(2, CHANNELS, side, side, dtype=torch.float64))
        family = layer._function._family([x.flatten(2).transpose(1, 2), layer.w1])
    assert len(family.programs) <= 8


def test_a_layer_forgets_the_oldest_shapes(monkeypatch):
    monkeypatch.setattr(function, "SHAPES", 3)
    layer = poly_nl()
    for x in maps() + maps():
        torch.testing.assert_close(layer(x), by_hand(layer, x))
    assert len(layer._function._made) == 3


@settings(max_examples=5)
@given(st.integers(1, 6), st.integers(20, 70), st.integers(20, 70), st.sampled_from(["forward", "training"]))
def test_the_order_taken_around_a_size_is_as_cheap_as_the_one_planned_for_it(batch, height, width, objective):
    spec = pa.catalog.tesa(mean=True)
    fixed = (("C", 32), ("R", 8))
    family = plan_cache.family_of(str(spec), fixed, (), objective, "cpu", False, "float32")
    if not family.regions:
        for size in (30, 31):
            family.chosen({"C": 32, "R": 8, "H": size, "W": size, BATCH: 3})
    _, _, chosen = family.chosen({"C": 32, "R": 8, "H": height, "W": width, BATCH: batch})
    sizes = {"C": 32, "R": 8, "H": height, "W": width}
    planned = plan_cache.plan(spec, sizes, objective, batch=batch, device=family.model, accuracy="written")
    assert family.price(chosen) <= 1.05 * family.price(planned)
    assert len(family.regions) == 2


def test_a_lowered_graph_reads_sizes_from_shapes_and_refuses_shapes_that_contradict_each_other():
    plan = pa.plan(pa.catalog.poly_nl(), {"N": 49, "C": 4}, "training")
    graph = pa.lower(plan, dynamic=["N", "C"])
    for positions, channels in ((49, 4), (7, 5), (1, 1)):
        x = torch.randn(2, positions, channels, dtype=torch.float64)
        w1, w2, w3 = torch.randn(3, channels, channels, dtype=torch.float64)
        wanted = (((x @ w1) * (x @ w2)).mean(1, keepdim=True) * x) @ w3
        torch.testing.assert_close(graph(x, w1, w2, w3), wanted)
    with pytest.raises(pa.SizeError, match="'w2' has shape"):
        graph(x, w1, torch.ones(2, 2, dtype=x.dtype), w3)
    with pytest.raises(pa.SizeError, match="`dynamic` names 'M'"):
        pa.lower(plan, dynamic=["M"])
    with pytest.raises(pa.SizeError, match="cannot be read from the shapes of x"):
        pa.lower(pa.plan("x[N,C]; where r : R; y[a,b] = x[a,d]*w[d,r]*v[r,b]", {"N": 3, "C": 2, "R": 2}), dynamic=["R"])


def test_sizes_named_like_words_of_python_are_read_too():
    plan = pa.plan("x[None,True]; y[a,b] = 1/None*x[a,d]*w[d,b]", {"None": 3, "True": 2})
    x, w = torch.randn(2, 5, 2), torch.randn(2, 2)
    torch.testing.assert_close(pa.lower(plan, dynamic=["None"])(x, w), x @ w / 5)


def test_one_compiled_graph_serves_all_sizes():
    torch._dynamo.reset()
    layer, counter = poly_nl(), CompileCounter()
    compiled = torch.compile(layer, backend=counter, dynamic=True, fullgraph=True)
    for x in maps():
        torch.testing.assert_close(compiled(x), by_hand(layer, x))
    assert counter.frame_count <= 2
    torch._dynamo.reset()


@pytest.mark.parametrize("grad", [False, True])
def test_an_exported_layer_is_right_at_all_sizes(grad):
    layer, axes = poly_nl().eval(), {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    with torch.set_grad_enabled(grad):
        program = torch.export.export(layer, (maps()[0],), dynamic_shapes=(axes,)).module()
    for x in maps():
        torch.testing.assert_close(program(x), by_hand(layer, x))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_a_traced_layer_is_right_at_all_sizes(grad, dtype):
    layer = poly_nl(dtype).eval()
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(layer, maps(dtype)[0])
    for x in maps(dtype):
        torch.testing.assert_close(traced(x), by_hand(layer, x))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_is_right_at_all_sizes(dynamo, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    layer, file = poly_nl().eval(), str(tmp_path / "layer.onnx")
    if dynamo:
        axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
        torch.onnx.export(layer, (maps()[0],), file, dynamo=True, dynamic_shapes=(axes,))
    else:
        names = {0: "b", 2: "h", 3: "w"}
        options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": names, "y": names}}
        with torch.no_grad():
            torch.onnx.export(layer, (maps()[0],), file, dynamo=False, **options)
    session = runtime.InferenceSession(file)
    for x in maps():
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), by_hand(layer, x))


def test_an_export_is_stored_and_loaded_with_its_sizes_open():
    layer, axes, file = poly_nl().eval(), {2: torch.export.Dim("h")}, io.BytesIO()
    torch.export.save(torch.export.export(layer, (maps()[0],), dynamic_shapes=(axes,)), file)
    file.seek(0)
    x = torch.randn(2, CHANNELS, 11, 7)
    torch.testing.assert_close(torch.export.load(file).module()(x), by_hand(layer, x))
