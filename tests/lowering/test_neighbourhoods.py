"""Products over neighbourhoods against loops over every index, forward and by autograd."""

from __future__ import annotations

from itertools import product as combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyattn.lowering.convolutions import Task, convolution
from polyattn.lowering.neighbourhoods import product


def by_loops(arrays: list[np.ndarray], task: Task) -> np.ndarray:
    lengths = task.lengths
    placed = {p: (terms, start) for p, terms, start in task.relations}
    free = [i for i in lengths if i not in placed]
    out = np.zeros([lengths[i] for i in task.output])
    for values in combinations(*(range(lengths[i]) for i in free)):
        at = dict(zip(free, values, strict=True))
        for p, (terms, start) in placed.items():
            at[p] = start + sum(c * at[i] for i, c in terms)
        if any(not 0 <= at[p] < lengths[p] for p in placed):
            continue
        entries = [a[tuple(at[i] for i in n)] for a, n in zip(arrays, task.operands, strict=True)]
        out[tuple(at[i] for i in task.output)] += np.prod(entries)
    return out


@st.composite
def tasks(draw) -> Task:
    """A product of one or two tensors with one or two relations; any letter may be in any place."""
    axes = draw(st.integers(1, 2))
    letters, relations, lengths = "bcg", [], {}
    for p, i, u in ("piu", "qjv")[:axes]:
        steps = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (1, -1), (2, 3), (-1, 1)]))
        terms = ((i, steps[0]), (u, steps[1]))[: draw(st.sampled_from([2, 2, 2, 1]))]
        relations.append((p, terms, draw(st.integers(-3, 2))))
        letters += p + "".join(x for x, _ in terms)
        lengths |= {p: draw(st.integers(1, 5)), i: draw(st.integers(1, 4)), u: draw(st.integers(1, 3))}
    lengths |= {"b": 2, "c": 3, "g": 2}
    names = st.lists(st.sampled_from(letters), unique=True, max_size=5).map("".join)
    operands = tuple(draw(names) for _ in range(draw(st.integers(1, 2))))
    likely = "".join(p for p, _, _ in relations)
    if draw(st.booleans()):
        operands = (likely + operands[0].translate(str.maketrans("", "", likely)), *operands[1:])
    output = "".join(draw(st.lists(st.sampled_from(letters), unique=True, max_size=5)))
    if any(i in output and i not in "".join(operands) for i in "bcg"):
        output = "".join(i for i in output if i not in "bcg")
    used = set("".join(operands) + output) | {p for p, _, _ in relations} | {i for _, t, _ in relations for i, _ in t}
    return Task(operands, output, tuple(relations), tuple((i, n) for i, n in lengths.items() if i in used))


@given(tasks(), st.integers(0, 1000))
def test_a_product_over_neighbourhoods_is_its_loops(task: Task, seed: int):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal([task.lengths[i] for i in n]) for n in task.operands]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = product(tensors[0], tensors[1] if len(tensors) > 1 else None, task)
    expected = by_loops(arrays, task)
    np.testing.assert_allclose(value.detach().numpy(), expected, rtol=1e-10, atol=1e-10)


CONVOLUTION = Task(
    ("bpqc", "uvco"),
    "bijo",
    (("p", (("i", 1), ("u", 1)), -1), ("q", (("j", 1), ("v", 1)), -1)),
    tuple(zip("bpqcuvoij", (2, 6, 5, 3, 3, 3, 4, 6, 5), strict=True)),
)


def test_a_convolution_and_its_two_gradients_are_torchs_convolutions():
    x_again = Task(("bijo", "uvco"), "bpqc", CONVOLUTION.relations, CONVOLUTION.sizes)
    w_again = Task(("bpqc", "bijo"), "uvco", CONVOLUTION.relations, CONVOLUTION.sizes)
    found = [convolution(t) for t in (CONVOLUTION, x_again, w_again)]
    assert [c.kind for c in found if c] == ["forward", "transposed", "kernel"]
