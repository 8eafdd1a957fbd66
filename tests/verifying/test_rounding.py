"""Facts of the bounds for rounding errors: what a gradient of a function may be off."""

import pytest
import torch

from polyattn.errors import ProofError
from polyattn.language.functions import ARGUMENT, reads
from polyattn.lowering.pullbacks import PULLBACKS
from polyattn.verifying.rounding import RULES, Analysis, Rounded

BOUNDED = [name for name in PULLBACKS if f"{name}_backward" in RULES]


def given(name: str, size: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient and what the function's backward pass reads, as numbers of a precision."""
    generator = torch.Generator().manual_seed(5)
    gradient, x = (size * torch.randn(6, 7, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    x = x.to(dtype)
    result = {"softmax": lambda: x.softmax(1), "relu": x.relu, "sigmoid": x.sigmoid}
    gradient = gradient[:, :1] if name == "max" else gradient
    return gradient.to(dtype), x if reads(name) == ARGUMENT else result[name]()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_gradient_is_off_by_no_more_than_its_bound_and_the_bound_is_no_excuse(name: str, dtype: torch.dtype):
    axes = () if name in ("relu", "sigmoid") else ((1,),)
    for size in (0.01, 1.0, 30.0):
        gradient, read = given(name, size, dtype)
        found = RULES[f"{name}_backward"](
            Analysis.of(dtype), Rounded.exact(gradient.double()), Rounded.exact(read.double()), *axes
        )
        off = (PULLBACKS[name](gradient, read, *axes).double() - found.value).abs()
        assert (off <= found.error).all()
        scale = found.magnitude.max() + gradient.double().abs().max() * read.double().abs().max().clamp_min(1)
        assert found.error.max() <= 100 * torch.finfo(dtype).eps * scale * (1 if name != "normalize" else 100)


@pytest.mark.parametrize("name", BOUNDED)
def test_an_error_of_what_is_read_is_carried_on(name: str):
    """The gradients at two places that a rounding error could have confused are both within the bound."""
    axes = () if name in ("relu", "sigmoid") else ((1,),)
    gradient, read = given(name, 1.0, torch.float64)
    read[0, 0] = read[0, 0] * 1e-6 if name in ("relu", "normalize") else read[0, 0]
    read[1, 0] = read[1, 1]
    error = 1e-5 * torch.rand(read.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = RULES[f"{name}_backward"](
        Analysis.of(torch.float64), Rounded.exact(gradient), Rounded(read, read.abs(), error), *axes
    )
    for sign in (-1, 1):
        other = read + sign * error
        other = other.clamp_min(0) if name == "relu" else other
        off = (PULLBACKS[name](gradient, other, *axes) - found.value).abs()
        assert (off <= found.error).all()
    assert (found.error > 0).any()


def test_a_norm_near_its_least_value_has_no_bound():
    tiny = Rounded.exact(torch.full((2, 3), 1e-13, dtype=torch.float64))
    with pytest.raises(ProofError, match="where the norm is nearly 0"):
        RULES["normalize_backward"](Analysis.of(torch.float32), tiny, tiny, (1,))
