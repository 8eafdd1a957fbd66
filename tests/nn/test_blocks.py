"""What holds of every block: derivatives, half precision, compiled, exported and stored forms, layouts, refusals."""

import copy
import io
import pickle
import warnings

import onnxruntime
import pytest
import torch

import polyattn as pa

from .blocks import CASES

every_block = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_compiled_block = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.compiled], ids=[n for n, case in CASES.items() if case.compiled]
)
LARGE = {name: case for name, case in CASES.items() if case.large is not None}


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def value_and_gradients(module, x):
    y = module(x)
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    return y, torch.autograd.grad(y.sin().sum(), leaves, allow_unused=True)


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


@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_a_million_large_positions_do_not_overflow_in_half_precision(case, dtype):
    module = case.large().eval()
    sides = {1: (10**6,), 2: (1000, 1000), 3: (10, 250, 400)}[getattr(module, "dim", 2)]
    x = 30 * torch.randn(1, case.large_channels, *sides).sign()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        y = module(x)
    with torch.no_grad():
        exact = module(x)
    assert y.isfinite().all()
    assert (y - exact).norm() <= 0.03 * exact.norm()


@every_compiled_block
def test_compiled_in_one_graph_it_has_the_same_values_and_gradients(case):
    module = case.make().eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = case.image(requires_grad=True)
    torch.testing.assert_close(value_and_gradients(compiled, x), value_and_gradients(module, x))


@every_block
def test_exported_it_has_the_same_values_for_every_batch(case):
    module = case.make().eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (case.image(),), dynamic_shapes=batch).module()
    for number in (2, 5):
        x = case.image(number)
        torch.testing.assert_close(program(x), module(x))


@every_compiled_block
def test_onnxruntime_computes_the_same(case):
    module, x = case.make().eval(), case.image()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), module(x).detach(), rtol=1e-4, atol=1e-5)


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
    module, x, file = case.make().eval(), case.image(), io.BytesIO()
    y = module(x)
    torch.save(module, file)
    file.seek(0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), y)
        assert twin.spec == module.spec
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.fill_(3)
        assert torch.equal(module(x), y)


@every_block
def test_its_state_carries_it(case):
    module, other, x = case.make().eval(), case.make().eval(), case.image()
    assert not torch.equal(module(x), other(x))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))


@every_block
def test_it_has_a_specification_that_prints_back_to_itself(case):
    spec = case.make().spec
    assert pa.Spec(str(spec)) == spec


@every_block
def test_other_channels_are_refused(case):
    x = torch.zeros(2, case.channels + 1, *case.positions)
    with pytest.raises(pa.SizeError, match=rf"{case.channels} channels.* has {case.channels + 1}"):
        case.make()(x)


@every_block
def test_whole_numbers_are_refused(case):
    with pytest.raises(pa.SizeError, match=r"floating dtype, not torch\.int64"):
        case.make()(case.image().long())


@every_block
def test_a_map_without_positions_is_refused(case):
    x = torch.zeros(2, case.channels, *case.positions[:-1], 0)
    with pytest.raises(pa.SizeError, match="positions"):
        case.make()(x)


@every_block
def test_another_number_of_axes_is_refused(case):
    with pytest.raises(pa.SizeError, match="shape"):
        case.make()(torch.zeros(2, case.channels, *case.positions, 2, 2))
