"""`polyattn.einsum` against `torch.einsum` on generated equations: values and gradients, in float64."""

from __future__ import annotations

import random
from typing import Any

import torch
from _common import arguments, show, write
from torch import Tensor

from polyattn import einsum

COUNT = 2000
TOLERANCE = 1e-10


def generated(seed: int) -> tuple[str, list[Tensor]]:
    """Up to 8 operands, some the same tensor; diagonals, ellipses, axes that broadcast, implicit outputs."""
    draw = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = {c: draw.randint(1, 3) for c in "abcdefG"}
    dots = [draw.randint(1, 3) for _ in range(draw.randint(1, 2))]
    terms: list[str] = []
    operands: list[Tensor] = []
    for _ in range(draw.randint(1, 8)):
        if operands and draw.random() < 0.3:  # the same tensor, read with other indices of the same lengths
            k = draw.randrange(len(operands))
            plain = terms[k].isalpha() and [lengths[c] for c in terms[k]] == list(operands[k].shape)
            terms.append(other_letters(draw, terms[k], lengths) if plain and draw.random() < 0.5 else terms[k])
            operands.append(operands[k])
            continue
        term = "".join(draw.choice("abcdefG") for _ in range(draw.randint(0, 3)))
        shape = [1 if draw.random() < 0.1 and term.count(c) == 1 else lengths[c] for c in term]
        if draw.random() < 0.25:
            place = draw.randint(0, len(term))
            term, shape = f"{term[:place]}...{term[place:]}", shape[:place] + dots + shape[place:]
        terms.append(term)
        operands.append(torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_())
    equation = ",".join(terms)
    if draw.random() < 0.7:
        used = sorted(set(equation) - {",", "."})
        output = draw.sample(used, draw.randint(0, min(3, len(used))))
        if "..." in equation:
            output.insert(draw.randint(0, len(output)), "...")
        equation += "->" + "".join(output)
    return equation, operands


def other_letters(draw: random.Random, term: str, lengths: dict[str, int]) -> str:
    return "".join(draw.choice([d for d in lengths if lengths[d] == lengths[c]]) for c in term)


def error(mine: Tensor, theirs: Tensor) -> float:
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    scale = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
    return float((mine - theirs).abs().max()) / scale if theirs.numel() else 0.0


def measure(seed: int) -> dict[str, Any]:
    equation, operands = generated(seed)
    mine, theirs = einsum(equation, *operands), torch.einsum(equation, *operands)
    distinct = [o for k, o in enumerate(operands) if all(o is not p for p in operands[:k])]
    dy = torch.randn(theirs.shape, dtype=theirs.dtype, generator=torch.Generator().manual_seed(seed))
    gradients = [torch.autograd.grad(y, distinct, dy, allow_unused=True) for y in (mine, theirs)]
    zero = [
        tuple(torch.zeros_like(o) if g is None else g for g, o in zip(gs, distinct, strict=True)) for gs in gradients
    ]
    return {
        "seed": seed,
        "equation": equation,
        "operands": len(operands),
        "distinct": len(distinct),
        "value": error(mine.detach(), theirs.detach()),
        "gradient": max(map(error, *zero)),
    }


def main() -> None:
    args = arguments(__doc__)
    runs = [measure(seed) for seed in range(200 if args.quick else COUNT)]
    summary = {
        "equations": len(runs),
        "with a repeated operand": sum(r["distinct"] < r["operands"] for r in runs),
        "with an ellipsis": sum("..." in r["equation"] for r in runs),
        "with an implicit output": sum("->" not in r["equation"] for r in runs),
        "worst error of a value": max(r["value"] for r in runs),
        "worst error of a gradient": max(r["gradient"] for r in runs),
        "unequal": sum(max(r["value"], r["gradient"]) > TOLERANCE for r in runs),
    }
    show("polyattn.einsum against torch.einsum, relative to the largest entry", ("what", ""), summary.items())
    write(args, summary, runs)
    assert not summary["unequal"]


if __name__ == "__main__":
    main()
