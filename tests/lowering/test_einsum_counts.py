"""Facts of the multiply-accumulates that an einsum's graph runs, counted by torch's dispatcher."""

import random
from collections.abc import Mapping

import opt_einsum
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polyattn.lowering.einsums import einsum_graph, einsum_plan

aten = torch.ops.aten


class Count(TorchDispatchMode):
    macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs: Mapping | None = None):
        made = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in (aten.mm, aten.bmm, aten.dot, aten.mv):
            self.macs += made.numel() * args[0].shape[-1]
        elif packet in (aten.addmm, aten.baddbmm, aten.addmv):
            self.macs += made.numel() * args[1].shape[-1]
        elif packet is aten.mul and all(isinstance(a, torch.Tensor) for a in args):
            self.macs += made.numel()
        return made


def counted(equation: str, shapes: list[tuple[int, ...]]) -> int:
    graph = einsum_graph(equation, shapes, range(len(shapes)), cost="macs")
    with Count() as count, torch.no_grad():
        graph(*(torch.empty(s, device="meta") for s in shapes))
    return count.macs


def drawn(number: int) -> tuple[str, list[tuple[int, ...]]]:
    """A network of four to eight tensors with two open indices, whose lengths are short."""
    draw = random.Random(number)
    operands = draw.randint(4, 8)
    pairs = [(draw.randrange(k), k) for k in range(1, operands)]
    pairs += [tuple(draw.sample(range(operands), 2)) for _ in range(operands // 2)]
    axes = [[i for i, pair in enumerate(pairs) if k in pair] for k in range(operands)]
    for index in (len(pairs), len(pairs) + 1):
        draw.choice(axes).append(index)
    for own in axes:
        draw.shuffle(own)
    lengths = [draw.choice([2, 3, 4, 6]) for _ in range(len(pairs) + 2)]
    text = ",".join("".join(map(opt_einsum.get_symbol, own)) for own in axes)
    output = "".join(map(opt_einsum.get_symbol, (len(pairs), len(pairs) + 1)))
    return f"{text}->{output}", [tuple(lengths[i] for i in own) for own in axes]


@pytest.mark.parametrize("number", range(6))
def test_an_einsum_planned_by_macs_runs_no_more_than_its_plan_says(number: int):
    """Neither a matrix with zeros around its blocks nor a product of which one diagonal is read."""
    for seed in range(5 * number, 5 * number + 5):
        equation, shapes = drawn(seed)
        plan = einsum_plan(equation, shapes, range(len(shapes)), cost="macs")
        assert counted(equation, shapes) <= plan.macs, equation


def test_two_einsums_that_were_filled_with_zeros_by_hand():
    assert counted("ab,adcg,eb,dfec->fg", [(6, 2), (6, 4, 2, 2), (3, 2), (4, 3, 3, 2)]) == 432
    hinted = [(3, 4), (2, 2, 4), (6, 2, 3, 2), (2, 2, 4), (3, 3, 2), (6, 3, 2)]
    assert counted("ga,cba,hbde,cfi,djf,hge->ij", hinted) == 384
