"""Deviations from the mean: the same function, the same gradients, and the digits that the author's order keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from polyattn import Spec, catalog, lower, plan
from polyattn.errors import SizeError
from polyattn.lowering import training_function
from polyattn.planning.accuracy import Accuracy
from polyattn.planning.centring import STEPS, centred
from polyattn.planning.costs import CPU
from polyattn.planning.search import keeping_little, question, with_backward

SIZES = {"N": 6, "H": 4, "W": 6, "C": 4, "R": 2, "V": 3, "K": 2, "G": 2, "M": 2, "D": 6, "S": 2, "U": 2}


def sizes_of(spec: Spec) -> dict[str, int]:
    if "U" in spec.sizes.names:  # H = S*U, W = S*V
        return {n: SIZES[n] for n in spec.sizes.names if n not in ("D",)}
    if "D" in spec.sizes.names:  # D = G*M
        return {n: {**SIZES, "M": 3, "P": 2}[n] for n in spec.sizes.names}
    return {n: SIZES[n] for n in spec.sizes.names}


def tensors_of(made, generator: torch.Generator, mean: float) -> list[torch.Tensor]:
    spec = made.spec
    shapes = [[2, *(made.sizes[s] for s in shape)] for shape in spec.inputs.values()]
    shapes += [[made.sizes[s] for s in shape] for shape in spec.parameters.values()]
    found = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [found[0] + mean, *found[1:]]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_deviations_from_the_mean_compute_the_specification(name: str, steps: str):
    spec = catalog.get(name)
    cheapest = plan(spec, sizes_of(spec), batch=2)
    made = replace(cheapest, graph=centred(cheapest.graph, spec, steps))
    tensors = tensors_of(made, torch.Generator().manual_seed(0), 2.0)
    named = dict(zip((*spec.inputs, *spec.parameters), tensors, strict=True))
    inputs = list(spec.inputs)
    wanted = [
        spec.evaluate({n: (t[k] if n in inputs else t).numpy() for n, t in named.items()}, made.sizes) for k in range(2)
    ]
    np.testing.assert_allclose(lower(made)(*tensors).numpy(), np.stack(wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["nl", "poly_nl", "tt_nl", "glore"])
def test_gradients_of_a_centred_plan_are_right(name: str):
    spec = catalog.get(name)
    forward = plan(spec, sizes_of(spec), batch=2)
    made = with_backward(replace(forward, objective="training", graph=centred(forward.graph, spec, "all")))
    assert made.means
    tensors = [t.requires_grad_() for t in tensors_of(made, torch.Generator().manual_seed(1), 1.0)]
    assert torch.autograd.gradcheck(training_function(made), tensors, atol=1e-5)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("name", catalog.names("third_order"))
def test_the_backward_pass_of_a_centred_plan_is_the_gradient(name: str, again: bool):
    spec = catalog.get(name)
    forward = plan(spec, sizes_of(spec), batch=2)
    centred_plan = replace(forward, objective="training", graph=centred(forward.graph, spec, "all"))
    made = with_backward(centred_plan)
    if again:
        assert made.backward is not None
        made = keeping_little(made, 10**9, question(spec, sizes_of(spec), "training", batch=2, memory_limit=0))
        assert not made.kept_bytes
    tensors = [t.requires_grad_() for t in tensors_of(made, torch.Generator().manual_seed(1), 1.0)]
    written = plan(spec, sizes_of(spec), "as_written", batch=2)
    ours, theirs = training_function(made)(*tensors), lower(written)(*tensors)
    seed = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = zip(
        torch.autograd.grad(ours, tensors, seed, allow_unused=True),
        torch.autograd.grad(theirs, tensors, seed, allow_unused=True),
        strict=True,
    )
    for own, right in found:
        if right is not None:
            torch.testing.assert_close(own, right, rtol=1e-9, atol=1e-9)


def test_the_backward_pass_of_a_centred_plan_sums_deviations_alone():
    made = plan(catalog.nl(), {"N": 1024, "C": 64}, "training", accuracy="written")
    assert made.backward is not None
    nodes, names = made.backward.graph.nodes, made.backward_names
    mean = next(names[k] for k in made.backward_means)
    products = [
        {names[o.value] for o in n.operands}
        for n in nodes
        if len(n.operands) == 2 and "N" in {i.size for i in getattr(n, "summed", ())}
    ]
    assert products
    assert not any("x" in p for p in products)
    added = [{names[o.value] for o in n.operands} for k, n in enumerate(nodes) if k not in made.backward_means]
    assert any(mean in p and p & {"wf", "wg"} for p in added)


def test_the_backward_pass_of_poly_nl_takes_a_few_products_of_vectors_more():
    cheapest, safe = (plan(catalog.poly_nl(), {"N": 4096, "C": 64}, "training", accuracy=a) for a in ("any", "written"))
    assert 0 < safe.backward_macs - cheapest.backward_macs < 2e-3 * cheapest.backward_macs


def pairs(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """A weight whose columns sum to exactly 0 in every dtype."""
    half = torch.randn(shape[0] // 2, *shape[1:], generator=generator).bfloat16().float()
    return torch.stack([half, -half], 1).flatten(0, 1)


def by_hand(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, w3: torch.Tensor) -> torch.Tensor:
    """Poly-NL, Eq. 7, in the author's order."""
    return (((x @ w1) * (x @ w2)).mean(1, keepdim=True) * x) @ w3


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double() - truth).detach().norm() / truth.detach().norm())


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_a_mean_that_weights_remove_costs_no_digits(dtype: torch.dtype, least: float):
    generator = torch.Generator().manual_seed(2)
    weights = [pairs(32, 32, generator=generator).to(dtype) / 8 for _ in range(3)]
    x = (10 + torch.randn(2, 1024, 32, generator=generator)).to(dtype)
    made = plan(catalog.poly_nl(), {"N": 1024, "C": 32}, "training", batch=2, accuracy="written")
    assert made.accuracy is not None
    assert made.accuracy.centred
    assert made.accuracy.kept
    tensors = [t.clone().requires_grad_() for t in (x, *weights)]
    exact = [t.double().requires_grad_() for t in (x, *weights)]
    author = [t.clone().requires_grad_() for t in (x, *weights)]
    y, truth, theirs = training_function(made, dtype=dtype)(*tensors), by_hand(*exact), by_hand(*author)
    assert y.dtype == dtype
    assert error(y, truth) <= 4 * max(error(theirs, truth), least / 4)
    seed = torch.randn(y.shape, generator=generator).to(dtype)
    found = zip(
        torch.autograd.grad(y, tensors, seed),
        torch.autograd.grad(truth, exact, seed.double()),
        torch.autograd.grad(theirs, author, seed),
        strict=True,
    )
    for ours, right, other in found:
        assert error(ours, right) <= 4 * max(error(other, right), least / 4)


def test_the_gram_form_loses_the_square_of_the_mean_and_says_so():
    sizes = {"N": 4096, "C": 64}
    cheapest, safe = (plan(catalog.poly_nl(), sizes, accuracy=a).accuracy for a in ("any", "written"))
    assert cheapest is not None
    assert safe is not None
    assert (cheapest.wide, cheapest.sums, cheapest.kept) == (2, 1, False)
    assert (safe.wide, safe.narrow, safe.sums, safe.written) == (1, 0, 0, (1, 0, 0))
    assert "m^2 eps" in str(cheapest)
    assert "deviations" in str(safe)


def test_a_centred_plan_takes_a_few_products_of_vectors_more():
    sizes = {"N": 4096, "C": 64}
    cheapest, safe = (plan(catalog.poly_nl(), sizes, accuracy=a) for a in ("any", "written"))
    assert 0 < safe.macs - cheapest.macs < 1e-3 * cheapest.macs


def test_sums_of_one_map_in_32_bits_are_allowed_where_maps_have_16():
    sizes = {"H": 32, "W": 32, "C": 32, "G": 4, "S": 8, "K": 16}
    narrow = replace(CPU, itemsize=2)
    wide, half, written = (
        plan(catalog.ba_transform_block(), sizes, o, batch=2, accuracy="written", device=d)
        for o, d in (("forward", CPU), ("forward", narrow), ("as_written", CPU))
    )
    assert wide.accuracy is not None
    assert wide.accuracy.sums <= wide.accuracy.written[2] == 1
    assert half.accuracy is not None
    assert half.accuracy.kept
    assert half.macs < 0.6 * written.macs


def test_an_unknown_accuracy_is_refused():
    with pytest.raises(SizeError, match="unknown accuracy 'best'; there are written, any"):
        plan(catalog.nl(), {"N": 4, "C": 4}, accuracy="best")


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ((1, 0, 0), True),
        ((0, 0, 0), True),
        ((2, 0, 0), False),  # another power of the mean, with one precision
        ((1, 1, 0), False),  # or with 16-bit maps
        ((1, 0, 1), False),  # or a sum with the mean
    ],
)
def test_a_plan_is_kept_that_loses_no_power_more_than_the_author(own, kept):
    assert Accuracy(*own, written=(1, 0, 0), centred=True).kept == kept
