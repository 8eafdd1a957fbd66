"""What holds of every block: derivatives, half precision, compiled, exported and stored forms, layouts, refusals."""

import warnings
from functools import lru_cache

import onnxruntime
import pytest
import torch

import polyattn as pa
from tests.drawing import PROFILE, mostly_nightly

from .blocks import CASES, EVERY_KIND, FLOAT16, awake
from .forms import assert_state_carries_it, assert_twins_compute_the_same_and_share_nothing, value_and_gradients

every_block = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
BOTH = {*EVERY_KIND} - {"Axial"}
HALVES = [
    # In CI further forms of a block, and one whose similarities take seconds, have one dtype only.
    pytest.param(name, dtype, marks=[] if dtype == case.halves[-1] or name in BOTH else [pytest.mark.nightly])
    for name, case in CASES.items()
    if case.large is not None
    for dtype in case.halves
]
OPERATORS = ("NonLocal", "LatentGNN", "BATBlock")
"""Blocks that have each of the operators of blocks: softmax, heads, norms, pooling, products over sums of positions."""
RESIDUAL = [n for n in CASES if not n.startswith("BATransform")]


def channels_last(x):
    return x.to(memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()])


@every_block
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_its_derivatives_are_those_of_its_values(case, training):
    module = case.make().double().train(training)
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.eval()  # its noise is no function of the input
    leaves = [case.image(dtype=torch.float64, requires_grad=True), *module.parameters()]

    def function(x, *parameters):
        named = dict(zip((n for n, _ in module.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(module, named, (x,))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


MANY = {1: (10**6,), 2: (1000, 1000), 3: (10, 250, 400)}
"""A million positions, by the number of axes."""
if PROFILE == "ci":
    # Sums of squares overflow from 73 positions on, of values from 2,184, and their number itself from 65,504.
    MANY = {1: (150_000,), 2: (500, 300), 3: (4, 150, 250)}


def large_image(channels, dim, sides):
    sides = sides or MANY[dim]
    return 30 * torch.randn(1, channels, *sides).sign()


@lru_cache(maxsize=1)
def at_its_largest(name):
    """The block, its input of numbers of size 30, and what it gives in 32 bits."""
    case = CASES[name]
    module = case.large().eval()
    sides = case.large_sides and [side if PROFILE != "ci" else side // 2 for side in case.large_sides]
    x = large_image(case.large_channels, getattr(module, "dim", 2), sides)
    with torch.no_grad():
        return module, x, module(x)


def assert_half_precision_holds_it(module, x, exact, dtype):
    with torch.no_grad(), torch.autocast("cpu", dtype):
        y = module(x)
    assert y.isfinite().all()
    assert (y - exact).norm() <= 0.03 * exact.norm()


@pytest.mark.parametrize(("name", "dtype"), HALVES, ids=lambda value: str(value).removeprefix("torch."))
def test_many_large_positions_do_not_overflow_in_half_precision(name, dtype):
    assert_half_precision_holds_it(*at_its_largest(name), dtype)


@pytest.mark.parametrize(("make", "sides"), FLOAT16.values(), ids=FLOAT16.keys())
def test_float16_holds_what_fits_into_it(make, sides):
    module = make().eval()
    x = large_image(2, module.dim, sides)
    with torch.no_grad():
        exact = module(x)
    assert_half_precision_holds_it(module, x, exact, torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", RESIDUAL)
def test_with_a_residual_its_output_under_autocast_has_the_dtype_of_its_input(name, dtype):
    torch.manual_seed(0)
    block, x = awake(CASES[name].make()).eval(), CASES[name].image(dtype=dtype)
    exact = block(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    assert y.dtype == dtype
    assert (y - exact).norm() <= 0.03 * exact.norm()


@pytest.mark.parametrize("name", mostly_nightly(CASES, EVERY_KIND))
@pytest.mark.usefixtures("_nothing_compiled_before")
def test_compiled_in_one_graph_it_has_the_same_values_and_gradients(name):
    case = CASES[name]
    module = case.make().double().eval()  # a compiler may choose another plan, whose float32 differs in the last digits
    backward = case.thorough and (PROFILE != "ci" or name in OPERATORS)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager" if backward else "eager")
    x = case.image(requires_grad=True, dtype=torch.float64)
    torch.testing.assert_close(value_and_gradients(compiled, x), value_and_gradients(module, x))


@lru_cache(maxsize=1)
def exported(name):
    """The block, and its exported program for every batch."""
    module = CASES[name].make().eval()
    batch = ({0: torch.export.Dim("batch")},)
    return module, torch.export.export(module, (CASES[name].image(3),), dynamic_shapes=batch, strict=False)


def assert_onnxruntime_computes_the_same(module, exportable, arguments, images, optimize=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(exportable, arguments, dynamo=True, verbose=False, optimize=optimize)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for x in images:
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), module(x).detach(), rtol=1e-4, atol=1e-5)


onnx_of_any_batch = pytest.mark.skipif(
    torch.__version__ < torch.torch_version.TorchVersion("2.7"),
    reason="torch 2.6 decomposes no matrix product with a bias and a symbolic batch for ONNX",
)


def forms(name):
    """Yield the forms a block is exported to, with the marks of the test."""
    yield "program", [] if name in EVERY_KIND else [pytest.mark.nightly]
    if name in EVERY_KIND:
        yield "onnx", [onnx_of_any_batch, *([] if name in OPERATORS else [pytest.mark.nightly])]


FORMS = [pytest.param(name, form, id=f"{name}-{form}", marks=marks) for name in CASES for form, marks in forms(name)]


def test_every_block_is_exported_to_onnx():
    assert {type(CASES[name].make()) for name in EVERY_KIND} == {type(case.make()) for case in CASES.values()}


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_exported_it_has_the_same_values_for_every_batch(name, form):
    module, program = exported(name)
    images = [CASES[name].image(batch) for batch in (2, 5)]
    if form == "onnx":
        assert_onnxruntime_computes_the_same(module, program, (), images, CASES[name].thorough)
        return
    for x in images:
        torch.testing.assert_close(program.module()(x), module(x))


ALIKE = [
    "NonLocal",
    "NonLocal, gaussian, heads",
    "NonLocal, dot product, heads, sub-sampled",
    "EfficientNL",
    "BATransform, full resolution",
    "CGNL",
]


@onnx_of_any_batch
@pytest.mark.parametrize("name", mostly_nightly(ALIKE, ("CGNL",)))
def test_in_onnx_two_images_are_not_taken_for_two_heads_or_groups(name):
    """An exporter that knows the batch may join axes of one length."""
    module, x = CASES[name].make().eval(), CASES[name].image(2)
    assert getattr(module, "heads", getattr(module, "groups", None)) == len(x)
    assert_onnxruntime_computes_the_same(module, module, (x,), [x])


@every_block
def test_it_keeps_the_layout_of_its_input_in_memory(case):
    module, x = case.make().eval(), case.image()
    y = module(x)
    assert y.is_contiguous()
    if x.dim() > 3:
        last = module(channels_last(x))
        assert channels_last(last) is last
        torch.testing.assert_close(last, y)


@every_block
def test_its_input_is_left_as_it_was(case):
    module, x = case.make(), case.image()
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


@every_block
def test_copied_pickled_and_stored_it_computes_the_same_and_shares_nothing(case):
    assert_twins_compute_the_same_and_share_nothing(case.make().eval(), case.image())


@every_block
def test_its_state_carries_it(case):
    assert_state_carries_it(case.make().eval(), case.make().eval(), case.image())


@every_block
def test_it_has_a_specification_that_prints_back_to_itself(case):
    spec = case.make().spec
    assert pa.Spec(str(spec)) == spec


def refuses(case, x, message):
    block = case.make()
    with pytest.raises(pa.SizeError, match=f"{type(block).__name__}: {message}"):
        block(x)


@every_block
def test_other_channels_are_refused(case):
    x = torch.zeros(2, case.channels + 1, *case.positions)
    refuses(case, x, rf"the block has {case.channels} channels.* has {case.channels + 1}")


@every_block
def test_whole_numbers_are_refused(case):
    refuses(case, case.image().long(), r"the input must be of a floating dtype, not torch\.int64")


@every_block
def test_a_map_without_positions_is_refused(case):
    for sides in ((*case.positions[:-1], 0), (0, *case.positions[1:])):
        refuses(case, torch.zeros(2, case.channels, *sides), "the input has no positions")


@every_block
def test_another_number_of_axes_is_refused(case):
    refuses(case, torch.zeros(2, case.channels, *case.positions, 2, 2), "the input must have the shape")
