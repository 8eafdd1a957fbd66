"""Facts of chunked plans in training: their function's gradients are those of the masked form."""

import pytest
import torch

import polyattn as pa
from polyattn.lowering.chunking import chunked_plan
from tests.lowering.test_allocations import allocated

CAUSAL = "x[N,C]; y[a,b] = x[a,d]*w[d,f]*x[e,f]*x[e,b]*[e <= a]"


def test_gradients_through_chunks_are_those_of_the_masked_form():
    chunked = chunked_plan(CAUSAL, {"N": 13, "C": 3, "B": 2}, length=5, training=True)
    masked = pa.plan(CAUSAL, {"N": 13, "C": 3, "B": 2}, "as_written")
    tensors = [torch.randn(2, 13, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)]
    found = []
    for function in (pa.training_function(chunked), pa.lower(masked)):
        given = [t.clone().requires_grad_() for t in tensors]
        output = function(*given)
        found += [output, *torch.autograd.grad(output.square().sum(), given)]
    torch.testing.assert_close(found[:3], found[3:])


def test_a_chunked_plan_without_a_backward_pass_is_no_training_function():
    chunked = chunked_plan(CAUSAL, {"N": 13, "C": 3}, length=5)
    with pytest.raises(pa.SizeError, match="no planned backward pass"):
        pa.training_function(chunked)


@pytest.mark.parametrize("training", [False, True])
def test_torch_allocates_what_a_chunked_plan_says(training: bool):
    chunked = chunked_plan(CAUSAL, {"N": 75, "C": 3, "B": 2}, length=5, training=training)
    x, w, seed = torch.randn(2, 75, 3), torch.randn(3, 3), torch.randn(2, 75, 3)

    def both() -> object:
        if not training:
            return pa.lower(chunked)(x, w)
        given = [x.requires_grad_(), w.requires_grad_()]
        output = pa.training_function(chunked)(*given)
        return output, torch.autograd.grad(output, given, seed)

    both()
    assert 0.95 * chunked.peak_bytes <= allocated(both) <= chunked.peak_bytes
