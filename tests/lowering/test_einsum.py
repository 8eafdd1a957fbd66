"""Facts of `pa.einsum`: torch's values and gradients, and fewer products where operands are one tensor."""

import math
import random
import warnings
from itertools import chain

import opt_einsum.testing
import pytest
import torch
from torch._dynamo.testing import CompileCounter

import polyattn as pa
from polyattn.lowering import FUNCTIONS
from polyattn.lowering.einsums import einsum_graph, einsum_plan, same_tensors


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
    with pytest.raises(TypeError, match=r"the equation must be text, .* not int; or give tensors and lists of their"):
        pa.einsum(3, a)
    with pytest.raises(pa.SizeError, match="unknown `cost` 'time'; there are roofline, macs"):
        pa.einsum("ij->", a, cost="time")
    with pytest.raises(TypeError, match=r"operand 1 must be a torch.Tensor, not ndarray; .*torch.as_tensor"):
        pa.einsum("ij,kj->ik", a, a.numpy())
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
        ("i1->i", [(2, 3)], "'1' is not an index: indices are letters"),
    ],
)
def test_wrong_equations_are_named(equation: str, shapes: list[tuple[int, ...]], message: str):
    with pytest.raises(pa.PolyattnError) as caught:
        pa.einsum(equation, *map(torch.ones, shapes))
    assert str(caught.value).split("\n")[0] == message


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_narrow_integers_keep_their_dtype(dtype: torch.dtype):
    a, b = torch.arange(6).reshape(2, 3).to(dtype), torch.arange(40, 52).reshape(3, 4).to(dtype)
    for equation, operands in (("ij,jk->ik", (a, b)), ("ij,ij->", (a, a)), ("ij,jk->", (a, b))):
        found = pa.einsum(equation, *operands)
        exact = torch.einsum(equation, *(o.long() for o in operands))
        assert found.dtype == dtype
        assert torch.equal(found, exact.to(dtype))


def test_a_diagonal_of_two_lengths_and_operands_of_two_kinds_are_refused():
    with pytest.raises(pa.SizeError, match="repeated in operand 0, but its axes have lengths 1 and 3"):
        pa.einsum("ii", torch.ones(1, 3))
    a, mask = torch.ones(3, 3), torch.ones(3, 3) > 0
    for operands in ((a, mask), (mask, mask)):
        with pytest.raises(TypeError, match=r"must hold numbers, not torch.bool; convert it"):
            pa.einsum("ij,jk->ik", *operands)
    with pytest.raises(TypeError, match=r"must have the first operand's dtype torch.float32, not torch.float64"):
        pa.einsum("ij,jk->ik", a, a.double())


def test_lists_of_indices_are_torchs_format_without_its_limit_of_52():
    a, b = torch.randn(2, 3, 4), torch.randn(4, 3)
    for call in ((a, [0, 1, 2], b, [2, 1], [0, 1]), (a, [30, 1, 2], b, [2, 3]), (a, [..., 2], b, [2, 0], [..., 0])):
        torch.testing.assert_close(pa.einsum(*call), torch.einsum(*call))
    matrices = [torch.eye(2) + k / 100 for k in range(60)]
    call = [part for k, m in enumerate(matrices) for part in (m, [k, k + 1])]
    torch.testing.assert_close(pa.einsum(*call, [0, 60]), torch.linalg.multi_dot(matrices))
    with pytest.raises(TypeError, match="a whole number of 0 or more"):
        pa.einsum(a, [0, 1, -2])


def test_views_of_the_same_entries_are_one_tensor_where_no_gradient_goes_through_them():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert same_tensors("ij,jk,kl,ln->in", [a, b, b.T, a.detach().T]) == ((0, 1, 1, 0), "ij,jk,lk,nl->in")
    assert same_tensors("ij,kj->ik", [b, b[:, :3]])[0] == (0, 1)
    trained = b.clone().requires_grad_()
    assert same_tensors("ij,kj->ik", [trained, trained.detach()])[0] == (0, 1)
    found = pa.einsum("ij,jk,kl,ln->in", a, trained, trained.T, a.T)
    (gradient,) = torch.autograd.grad(found.sum(), trained)
    (expected,) = torch.autograd.grad((a @ trained @ trained.T @ a.T).sum(), trained)
    torch.testing.assert_close(gradient, expected)
    with torch.no_grad():
        torch.testing.assert_close(pa.einsum("ij,jk,kl,ln->in", a, b, b.T, a.T), a @ b @ b.T @ a.T)


def test_an_inner_product_is_a_matrix_product():
    code = einsum_graph("ij,ij->", [(64, 64)] * 2, (0, 1)).code
    assert "matmul" in code
    assert ".sum(" not in code


@pytest.mark.parametrize("count", [5, 12, 18])
def test_no_order_takes_more_than_opt_einsums_best_and_repeats_take_less(count: int):
    equation, shapes, *_ = opt_einsum.testing.rand_equation(count, 3, n_out=2, d_min=2, d_max=5, seed=count)
    terms = equation.split("->")[0].split(",")
    lengths = dict(chain.from_iterable(zip(t, s, strict=True) for t, s in zip(terms, shapes, strict=True)))
    paths = [opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=m)[1] for m in ("dp", "auto-hq")]
    theirs = min(
        sum(math.prod(lengths[c] for c in set(step[2].split("->")[0]) - {","}) for step in path.contraction_list)
        for path in paths
    )
    assert einsum_plan(equation, shapes, range(count), cost="macs").macs <= theirs
    powers = ",".join(f"{chr(97 + k)}{chr(98 + k)}" for k in range(count)) + f"->a{chr(97 + count)}"
    # The power of one matrix: by squaring, for 18 = 16 + 2 five products.
    assert einsum_plan(powers, [(9, 9)] * count, [0] * count, cost="macs").macs <= 9**3 * {5: 3, 12: 5, 18: 6}[count]


def test_one_compiled_graph_serves_all_lengths_and_a_trace_too():
    torch._dynamo.reset()

    def product(a, b, c):
        return pa.einsum("bij,jk,bkl,bij->il", a, b, c, a)

    def operands(b, i, j, k, count):
        return torch.randn(b, i, j), torch.randn(j, k), torch.randn(b, k, count)

    counter = CompileCounter()
    compiled = torch.compile(product, backend=counter, dynamic=True, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(product, operands(2, 3, 4, 5, 6))
    for lengths in ((2, 3, 4, 5, 6), (3, 4, 5, 6, 7), (7, 6, 5, 4, 3), (5, 5, 5, 5, 5)):
        a, b, c = operands(*lengths)
        wanted = torch.einsum("bij,jk,bkl,bij->il", a, b, c, a)
        for function in (compiled, traced):
            torch.testing.assert_close(function(a, b, c), wanted, atol=1e-4, rtol=1e-4)
    assert counter.frame_count <= 2
    torch._dynamo.reset()


def test_eager_einsums_of_any_number_of_shapes_are_forgotten_in_time():
    before = len(vars(FUNCTIONS))
    for length in range(2, 7):
        pa.einsum("ij,jk->ik", torch.ones(length, 3), torch.ones(3, 2))
    assert len(vars(FUNCTIONS)) == before
