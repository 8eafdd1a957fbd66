"""Facts of `pa.einsum`: torch's values and gradients, and fewer products where operands are one tensor."""

import random

import pytest
import torch

import polyattn as pa
from polyattn.lowering.einsums import einsum_graph


def test_a_product_and_its_transpose_are_computed_once():
    code = einsum_graph("ij,jk,lk,zl->iz", [(4, 5), (5, 6), (5, 6), (4, 5)], (0, 1, 1, 0)).code
    assert code.count("torch.matmul(") == 2
    assert einsum_graph("nlp,nlq->l", [(4, 5, 6)] * 2, (0, 0)).code.count(".sum(") == 2


def generated(seed: int, shortest: int = 1) -> tuple[str, list[torch.Tensor]]:
    """An equation with repeats, diagonals, ellipses, broadcast axes and shared operands."""
    draw = random.Random(seed)
    lengths = {c: draw.randint(shortest, 3) for c in "abcdeF"}
    dots = [draw.choice([shortest, 2]) for _ in range(draw.randint(1, 2))]
    terms, operands = [], []
    for _ in range(draw.randint(1, 6)):
        if operands and draw.random() < 0.3:
            k = draw.randrange(len(operands))
            terms.append(terms[k])
            operands.append(operands[k])
            continue
        term = "".join(draw.choice("abcdeF") for _ in range(draw.randint(0, 3)))
        shape = [1 if draw.random() < 0.1 and term.count(c) == 1 else lengths[c] for c in term]
        if draw.random() < 0.25:
            term, shape = "..." + term, dots + shape
        terms.append(term)
        generator = torch.Generator().manual_seed(seed + len(operands))
        operands.append(torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_())
    used = sorted(set("".join(terms)) - {"."})
    equation = ",".join(terms)
    if draw.random() < 0.7:
        dotted = "..." if "..." in equation else ""
        equation += "->" + dotted + "".join(draw.sample(used, draw.randint(0, len(used))))
    return equation, operands


@pytest.mark.parametrize("shortest", [0, 1])
@pytest.mark.parametrize("block", range(5))
def test_generated_equations_equal_torchs_in_values_and_gradients(block: int, shortest: int):
    for seed in range(40 * block, 40 * block + 40):
        equation, operands = generated(seed, shortest)
        expected, found = torch.einsum(equation, *operands), pa.einsum(equation, *operands)
        assert found.shape == expected.shape, equation
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
        distinct = list({id(o): o for o in operands}.values())
        seed_ = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad(y, distinct, seed_) for y in (found, expected))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_sum_over_nothing_is_zero_and_an_axis_of_nothing_is_empty():
    assert torch.equal(pa.einsum("ij,jk->ik", torch.randn(3, 0), torch.randn(0, 5)), torch.zeros(3, 5))
    assert pa.einsum("ij,jk->ik", torch.randn(0, 4), torch.randn(4, 5)).shape == (0, 5)
    with pytest.raises(pa.SizeError, match="index 'j'"):
        pa.einsum("ij,jk->ik", torch.randn(0, 4), torch.randn(3, 5))


def test_operands_may_be_one_list():
    a, b = torch.randn(2, 3), torch.randn(3, 4)
    for operands in ([a, b], (a, b)):
        torch.testing.assert_close(pa.einsum("ij,jk->ik", operands), a @ b)
    torch.testing.assert_close(pa.einsum("ij->", [a]), a.sum())


def test_what_is_no_equation_or_no_tensor_is_refused_with_the_remedy():
    a = torch.randn(2, 3)
    with pytest.raises(TypeError, match=r"the equation must be text, .* not Tensor; .*indices as letters"):
        pa.einsum(a, [0, 1], a, [2, 1], [0, 2])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"operand 1 must be a torch.Tensor, not ndarray; .*torch.as_tensor"):
        pa.einsum("ij,kj->ik", a, a.numpy())  # pyright: ignore[reportArgumentType]
    with pytest.raises(pa.SpecError, match="at least one operand"):
        pa.einsum("ij", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.complex64])
def test_any_dtype(dtype: torch.dtype):
    a = torch.arange(6).reshape(2, 3).to(dtype)
    assert torch.equal(pa.einsum("ij,kj->ik", a, a), torch.einsum("ij,kj->ik", a, a))


def test_it_compiles_in_one_graph():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    compiled = torch.compile(lambda a, b: pa.einsum("ij,jk,lk->il", a, b, b), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a, b), a @ b @ b.T)


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk->ik", [(2, 3)], "the equation has 2 operands, but 1 are given"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "index 'j' of 'ij,jk->ik' has length 3, but axis 0 of operand 1 has 4"),
        ("ijk->i", [(2, 3)], "operand 0 has 2 axes, but the equation 'ijk->i' gives it 3"),
        ("ij->ii", [(2, 3)], "index 'i' is repeated in the output"),
        ("ij->k", [(2, 3)], "index 'k' of the output is in no operand"),
        ("i1->i", [(2, 3)], "'1' is no index: indices are letters"),
    ],
)
def test_wrong_equations_are_named(equation: str, shapes: list[tuple[int, ...]], message: str):
    with pytest.raises(pa.PolyattnError) as caught:
        pa.einsum(equation, *map(torch.ones, shapes))
    assert str(caught.value).split("\n")[0] == message
