"""The blocks' values: against references that go position by position, and against their own specifications."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import polyattn as pa

from . import slow


@dataclass(frozen=True)
class Case:
    """A block, its slow reference, and the spatial axes that the reference keeps apart (0: it flattens them)."""

    make: Callable[..., nn.Module]
    channels: int
    words: dict[str, Any]
    reference: Callable[..., np.ndarray]
    known: dict[str, Any] = field(default_factory=dict)
    flat: bool = True


def case(make, channels, words, reference, *, flat=True, **known):
    return Case(make, channels, words, reference, known, flat)


nn_ = pa.nn
SOFT, SCALED = {"normalisation": "softmax"}, {"normalisation": "scaling"}
CASES = [
    case(nn_.PolyNL, 4, {"beta": 0.7}, slow.poly_nl),
    case(nn_.PolyNL, 4, {"reduction": 2, "alpha": 0.5, "beta": 0.7, "dim": 1}, slow.poly_nl),
    case(nn_.EfficientNL, 6, {"heads": 3}, slow.efficient, heads=3, **SOFT),
    case(
        nn_.EfficientNL, 4, {"key_channels": 6, "value_channels": 4, "heads": 2, **SCALED, "dim": 3}, slow.efficient,
        heads=2, **SCALED,
    ),
    case(nn_.TESA, 4, {"alpha": 0.5, **SCALED}, slow.tesa, flat=False, **SCALED),
    case(nn_.TESA, 4, {"alpha": 0.5, "reduction": 1, **SOFT}, slow.tesa, flat=False, **SOFT),
    case(
        nn_.LatentGNN, 4, {"latent_dims": [3, 2], "reduction": 2}, slow.latent_gnn,
        mode="asymmetric", graph_conv=False, kernels=2,
    ),
    case(
        nn_.LatentGNN, 6, {"latent_dims": (3,), "reduction": 2, "mode": "symmetric", "dim": 1}, slow.latent_gnn,
        mode="symmetric", graph_conv=False, kernels=1,
    ),
    case(
        nn_.LatentGNN, 4, {"latent_dims": [2, 3], "reduction": 1, "mode": "symmetric", "graph_conv": True},
        slow.latent_gnn, mode="symmetric", graph_conv=True, kernels=2,
    ),
    case(nn_.A2, 4, {"reduction": 2, "maps": 3}, slow.a2, **SOFT),
    case(nn_.A2, 4, {"reduction": 1, **SCALED, "dim": 1}, slow.a2, **SCALED),
    case(nn_.GloRe, 4, {"nodes": 3}, slow.glore, mean=True),
    case(nn_.GloRe, 4, {"reduction": 1, "mean": False, "dim": 3}, slow.glore, mean=False),
    case(nn_.CGNL, 8, {"groups": 2}, slow.cgnl, groups=2, scale=False),
    case(nn_.CGNL, 4, {"reduction": 1, "groups": 1, "scale": True, "dim": 1}, slow.cgnl, groups=1, scale=True),
    case(nn_.CrissCross, 4, {"reduction": 2}, slow.criss_cross, flat=False, recurrence=2, **SOFT),
    case(
        nn_.CrissCross, 4, {"reduction": 1, "recurrence": 1, **SCALED}, slow.criss_cross, flat=False,
        recurrence=1, **SCALED,
    ),
    case(nn_.Axial, 4, SOFT, slow.axial, flat=False, **SOFT),
    case(nn_.Axial, 4, {"dim": 1, **SCALED}, slow.axial, flat=False, **SCALED),
    case(nn_.Axial, 4, {"dim": 3, "reduction": 1, **SCALED}, slow.axial, flat=False, **SCALED),
    case(nn_.Axial, 4, {"dim": 3, **SOFT}, slow.axial, flat=False, **SOFT),
]  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.make.__name__} {c.words}")


def made(case: Case) -> nn.Module:
    """The block in float64, with random values in place of all that starts as a constant."""
    block = case.make(case.channels, **case.words).double().eval()
    with torch.no_grad():
        for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
            if tensor.dim() <= 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
    return block


def image(case: Case, batch: int = 2) -> torch.Tensor:
    spatial = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}[case.words.get("dim", 2)]
    return torch.randn(batch, case.channels, *spatial, dtype=torch.float64)


@every_case
def test_it_is_the_paper_s_formula_position_by_position(case):
    block, x = made(case), image(case)
    state = {name: value.numpy() for name, value in block.state_dict().items()}
    with torch.no_grad():
        y = block(x)
    for sample, got in zip(x, y, strict=True):
        rows = sample.movedim(0, -1).numpy()
        wanted = case.reference(rows.reshape(-1, case.channels) if case.flat else rows, state, **case.known)
        wanted = wanted.reshape(rows.shape)
        np.testing.assert_allclose(got.movedim(0, -1).numpy(), wanted, rtol=1e-9, atol=1e-9)


WITHOUT_BIAS = [
    (lambda: nn_.PolyNL(4, beta=1.0, alpha=0.0), None),
    (lambda: nn_.PolyNL(4, 2, beta=1.0, alpha=0.0), None),
    (lambda: nn_.EfficientNL(4, heads=2, bias=False), lambda block, x: block(x) - x),
    (lambda: nn_.EfficientNL(4, **SCALED, bias=False), lambda block, x: block(x) - x),
    (lambda: nn_.TESA(4, alpha=0.7), lambda block, x: block(x) - x),
    (lambda: nn_.TESA(4, alpha=0.7, **SOFT), lambda block, x: block(x) - x),
    (lambda: nn_.A2(4, 2, bias=False), lambda block, x: before(block, "bn", x)),
    (lambda: nn_.A2(4, 2, **SCALED, bias=False), lambda block, x: before(block, "bn", x)),
    (lambda: nn_.GloRe(4, 1), lambda block, x: before(block, "blocker", x)),
    (lambda: nn_.GloRe(4, 1, mean=False), lambda block, x: before(block, "blocker", x)),
    (lambda: nn_.CGNL(4, 1, 2), lambda block, x: before(block, "gn", x)),
    (lambda: nn_.CrissCross(4, 2, **SCALED), lambda block, x: block.attend(x)),
    (lambda: nn_.Axial(4), lambda block, x: block(x)),
    (lambda: nn_.Axial(4, **SCALED), lambda block, x: block(x)),
]


def before(block, norm, x):
    """What a block hands to its norm."""
    seen = []
    getattr(block, norm).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    block(x)
    return seen[0]


@pytest.mark.parametrize(("make", "output"), WITHOUT_BIAS)
def test_its_specification_is_what_it_computes(make, output):
    block = make().double().eval()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif name == "gamma":
                parameter.normal_()
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        got = (output or (lambda block, x: block(x)))(block, x)[0]
    spec = block.spec
    (shape,) = spec.inputs.values()
    rows = x[0].movedim(0, -1).numpy()
    parameters = {name: value.detach().numpy() for name, value in block.spec_parameters().items()}
    sizes = {name: 2 for name in ("J", "G") if name in spec.sizes.names}
    sizes |= {} if "J" not in sizes else {"J": block.heads}
    x_spec = rows.reshape(-1, 4) if len(shape) == 2 else rows
    wanted = np.asarray(spec.evaluate({"x": x_spec, **parameters}, sizes)).reshape(rows.shape)
    np.testing.assert_allclose(got.movedim(0, -1).numpy(), wanted, rtol=1e-9, atol=1e-9)


COUNTS = [
    (lambda: nn_.PolyNL(512), 3 * 512**2 + 2),  # Eq. 6, with alpha and beta
    (lambda: nn_.PolyNL(512, 4), 4 * 512 * 128 + 2),
    (lambda: nn_.EfficientNL(512, 64, 64, 8), 3 * (512 * 64 + 64) + 64 * 512 + 512),
    (lambda: nn_.TESA(512), 3 * (2 * 512 * 256 + 512**2) + 3),
    (lambda: nn_.LatentGNN(512), 2 * (512 * 128 + 256) + 2 * (128 * 100 + 200) + 128 * 512 + 1024 + 1),
    (lambda: nn_.LatentGNN(512, mode="symmetric"), 512 * 128 + 256 + 128 * 100 + 200 + 128 * 512 + 1024 + 1),
    (lambda: nn_.A2(512), 3 * (512 * 128 + 128) + 128 * 512 + 1024),
    (lambda: nn_.GloRe(512), 512 * 256 + 256 + 512 * 128 + 128 + 128**2 + 128 + 256**2 + 256 * 512 + 1024),
    (lambda: nn_.CGNL(512), 3 * 512 * 256 + 256 * 512 // 8 + 1024),
    (lambda: nn_.CrissCross(512), 2 * (512 * 64 + 64) + 512**2 + 512 + 1),
    (lambda: nn_.Axial(512), 2 * (2 * 512 * 256 + 512**2 + 1)),
]


@pytest.mark.parametrize(("make", "count"), COUNTS)
def test_it_has_as_many_parameters_as_the_authors_layers(make, count):
    with torch.device("meta"):
        block = make()
    assert sum(p.numel() for p in block.parameters()) == count


STARTS_AS_THE_IDENTITY = [nn_.PolyNL, nn_.TESA, nn_.LatentGNN, nn_.A2, nn_.GloRe, nn_.CrissCross, nn_.Axial]


@pytest.mark.parametrize("make", [*STARTS_AS_THE_IDENTITY, nn_.CGNL])
def test_at_first_it_is_the_identity_and_learns_to_be_another(make):
    block, x = make(16), torch.randn(2, 16, 3, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert any(parameter.grad.any() for parameter in block.parameters() if parameter.grad is not None)


def test_efficient_attention_starts_as_the_identity_where_that_is_asked_for():
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(nn_.EfficientNL(8, zero_init=True)(x), x)
    assert not torch.equal(nn_.EfficientNL(8)(x), x)


@pytest.mark.parametrize("make", [nn_.Axial, lambda c, **words: nn_.CrissCross(c, 2, **words)])
def test_two_rounds_that_start_at_zero_learn_nothing_that_takes_both_at_once_but_from_another_gamma_do(make):
    """The derivative of the result at one position by the input at another row and column."""
    for gamma, seen in ((0.0, False), (0.5, True)):
        block, x = make(4, gamma=gamma).double(), torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
        (of_position,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x, create_graph=True)
        (by_gamma,) = torch.autograd.grad(of_position[0, :, 2, 3].sin().sum(), block.gamma)
        assert bool(by_gamma.abs().max() > 1e-9) == seen


def test_the_plan_never_makes_a_similarity_of_positions_where_the_block_is_a_polynomial():
    for block in (nn_.PolyNL(16), nn_.TESA(16), nn_.CGNL(16)):
        sizes = {"N": 4096} if "N" in block.spec.sizes.names else {"H": 64, "W": 64}
        known = {s: n for s, n in {"C": 16, "R": 8, "G": 8, "D": 8}.items() if s in block.spec.sizes.names}
        assert pa.plan(block.spec, {"B": 1, **sizes, **known}).peak_bytes < 4096**2


REFUSED = [
    (lambda: nn_.PolyNL(10, 4), "reduction = 4 does not divide the 10 channels"),
    (lambda: nn_.PolyNL(8, dim=4), "PolyNL: dim must be 1 or 2 or 3, not 4"),
    (lambda: nn_.EfficientNL(8, 6, heads=4), "heads = 4 does not divide the 6 key channels"),
    (lambda: nn_.EfficientNL(8, value_channels=6, heads=4), "heads = 4 does not divide the 6 value channels"),
    (lambda: nn_.EfficientNL(8, heads=0), "heads must be a positive whole number, not 0"),
    (lambda: nn_.EfficientNL(8, normalisation="l2"), "normalisation must be 'softmax' or 'scaling', not 'l2'"),
    (lambda: nn_.EfficientNL(8, reduction=3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.TESA(8, 3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.LatentGNN(8, reduction=3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.A2(8, 3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.A2(8, normalisation="l2"), "normalisation must be 'softmax' or 'scaling', not 'l2'"),
    (lambda: nn_.GloRe(8, 3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.CGNL(8, 3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.CrissCross(8, 3), "reduction = 3 does not divide the 8 channels"),
    (lambda: nn_.Axial(8, dim=4), "Axial: dim must be 1 or 2 or 3, not 4"),
    (lambda: nn_.Axial(0), "channels must be a positive whole number, not 0"),
    (lambda: nn_.TESA(8, dim=3), "TESA: dim must be 2, not 3"),
    (lambda: nn_.LatentGNN(8, []), r"LatentGNN: latent_dims must be .* such as \[100\], not \[\]"),
    (lambda: nn_.LatentGNN(8, [0]), "latent_dims must be a positive whole number, not 0"),
    (lambda: nn_.LatentGNN(8, 100), "LatentGNN: latent_dims must be"),
    (lambda: nn_.LatentGNN(8, mode="both"), "mode must be 'asymmetric' or 'symmetric', not 'both'"),
    (lambda: nn_.A2(8, maps=0), "maps must be a positive whole number, not 0"),
    (lambda: nn_.GloRe(8, nodes=-1), "nodes must be a positive whole number, not -1"),
    (lambda: nn_.CGNL(8, groups=3), "groups = 3 does not divide the 8 channels"),
    (lambda: nn_.CGNL(8, 2, groups=8), "groups = 8 does not divide the 4 inner channels"),
    (lambda: nn_.CrissCross(8, recurrence=0), "recurrence must be a positive whole number, not 0"),
    (lambda: nn_.CrissCross(8, dim=1), "CrissCross: dim must be 2, not 1"),
    (lambda: nn_.Axial(8, 3), "reduction = 3 does not divide the 8 channels"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_a_block_that_cannot_be_is_refused_by_its_word(make, message):
    with pytest.raises(pa.SizeError, match=message):
        make()
