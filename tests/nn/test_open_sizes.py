"""Blocks whose path depends on the size, in graphs that serve every size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

import polyattn as pa
from polyattn.nn.open_cut import OpenCut, open_max, open_mean
from tests.drawing import mostly_nightly

BLOCKS = {
    "BATransform": lambda: pa.nn.BATransform(4, block_size=(3, 2), groups=2),
    "NonLocal, sub-sampled": lambda: pa.nn.NonLocal(4, similarity="gaussian", sub_sample=2, zero_init=False),
    "NonLocal": lambda: pa.nn.NonLocal(4, zero_init=False),
    "BATBlock": lambda: pa.nn.BATBlock(4, block_size=2, groups=2, dropout=0.0),
    "BATransform, downsample": lambda: pa.nn.BATransform(4, block_size=2, groups=2, downsample=True),
}
LEAST = {"BATransform": 4, "BATBlock": 3, "NonLocal, sub-sampled": 4}
"""The shortest side that an exported block takes: more positions than blocks, or two after sub-sampling."""
SHAPES = [(2, 4, 6, 8), (3, 4, 5, 7), (2, 4, 9, 4), (3, 4, 18, 20), (2, 4, 2, 3)]


@given(st.integers(1, 20), st.integers(1, 7))
def test_windows_of_an_open_length_pool_as_torch_does(length, blocks):
    x = torch.randn(2, 3, length, dtype=torch.float64)
    torch.testing.assert_close(open_max(x, blocks), F.adaptive_max_pool1d(x, blocks))
    torch.testing.assert_close(open_mean(x, blocks), F.adaptive_avg_pool1d(x, blocks))


@given(st.integers(1, 12), st.integers(1, 5))
def test_blocks_of_an_open_length_mix_positions_of_one_offset(length, blocks):
    x, scores = torch.randn(1, 1, length, 1, 2), torch.randn(1, 1, blocks, blocks)
    found = OpenCut.of(length, blocks, x.device).mixed(x, scores, lambda s: s.softmax(-1))[0, 0, :, 0]
    starts = [s * length // blocks for s in range(blocks + 1)]
    for i in range(length):
        block = max(s for s in range(blocks) if starts[s] <= i)
        offset = i - starts[block]
        have = [s for s in range(blocks) if starts[s] + offset < starts[s + 1]]
        weights = scores[0, 0, block, have].exp()
        expected = sum(w * x[0, 0, starts[s] + offset, 0] for w, s in zip(weights, have, strict=True)) / weights.sum()
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("name", mostly_nightly(BLOCKS, ["NonLocal"]))
def test_one_compiled_graph_serves_all_sizes(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    block, counter = BLOCKS[name]().eval(), CompileCounter()
    compiled = torch.compile(block, backend=counter, dynamic=True, fullgraph=True)
    for shape in SHAPES[:4]:
        x = torch.randn(shape)
        with torch.no_grad():
            expected = block(x)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2
    torch._dynamo.reset()


@pytest.mark.parametrize("name", mostly_nightly(BLOCKS, ["NonLocal, sub-sampled"]))
def test_an_exported_block_is_right_at_all_sizes(name):
    torch.manual_seed(0)
    block, least = BLOCKS[name]().eval(), LEAST.get(name, 2)
    axes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=least), 3: torch.export.Dim("w", min=least)}
    program = torch.export.export(block, (torch.randn(SHAPES[0]),), dynamic_shapes=(axes,)).module()
    for shape in (s for s in SHAPES if min(s[2:]) >= least):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = block(x)
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_sliding_blocks_are_refused_by_the_tracer():
    block = pa.nn.BATransform(4, block_size=2, groups=2, larger_maps="slide").eval()
    with pytest.raises(pa.SizeError, match=r"larger_maps=.*torch\.export"):
        torch.jit.trace(block, torch.randn(1, 4, 4, 4), check_trace=False)


@pytest.mark.parametrize("name", mostly_nightly(["NonLocal", "NonLocal, sub-sampled", "BATransform"], ["NonLocal"]))
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_of_the_tracing_exporter_is_right_at_all_sizes(name, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    block, file, axes = BLOCKS[name]().eval(), str(tmp_path / "block.onnx"), {0: "b", 2: "h", 3: "w"}
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": axes, "y": axes}}
    with torch.no_grad():
        torch.onnx.export(block, (torch.randn(SHAPES[0]),), file, dynamo=False, **options)
        session = runtime.InferenceSession(file)
        for shape in ((3, 4, 5, 7), (1, 4, 13, 14)):
            x = torch.randn(shape)
            (y,) = session.run(None, {"x": x.numpy()})
            torch.testing.assert_close(torch.from_numpy(y), block(x), rtol=1e-4, atol=1e-5)
