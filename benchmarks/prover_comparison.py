"""The prover against tensorgrad on the claims of proofs/: what each decides, and how long it takes.

A claim goes to tensorgrad as the difference of the two sides, each a sum of tensor networks, to be simplified to zero.
The sides are expanded and equations that are given are substituted beforehand, at no cost to it; polyattn gets texts.
Left out are claims with functions, with declared properties and with sizes that are numbers, which this translation
does not express. tensorgrad is no dependency: `pip install tensorgrad`.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sympy
import tensorgrad
from _common import arguments, geometric_mean, show, write
from tensorgrad.functions import pow as power

sys.path.insert(0, str(Path(__file__).parents[1]))
from polyattn import PolyattnError, Polynomial, Spec, prove
from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.language.syntax import IDENTITY
from proofs.__main__ import theorems
from proofs.theorem import Claim


class NotExpressible(Exception):
    """Why a claim is left out."""


def symbol(size: str) -> sympy.Symbol:
    if size.isdigit():
        raise NotExpressible("a size that is a number")
    return sympy.Symbol(size)


def network(term: Monomial, output: tuple[Index, ...]) -> tensorgrad.Tensor:
    """A monomial as a tensor network; an index that is read other than twice goes through a copy tensor."""
    parts: list[tensorgrad.Tensor] = []
    ends: dict[Index, list[str]] = {i: [f"out{k}"] for k, i in enumerate(output)}
    for number, factor in enumerate(term.factors):
        if not isinstance(factor, TensorFactor):
            raise NotExpressible("a function")
        edges = [f"e{number}_{k}" for k in range(len(factor.indices))]
        sizes = [symbol(i.size) for i in factor.indices]
        if factor.tensor == IDENTITY:
            parts.append(tensorgrad.Delta(sizes[0], *edges))
        else:
            slots = {f"s{k}": size for k, size in enumerate(sizes)}
            variable = tensorgrad.Variable(factor.tensor, **slots)
            parts.append(variable.rename(**dict(zip(slots, edges, strict=True))))
        for index, edge in zip(factor.indices, edges, strict=True):
            ends.setdefault(index, []).append(edge)
    for size, exponent in term.powers:
        whole = tensorgrad.Delta(symbol(size))
        parts += [whole] * exponent if exponent > 0 else [power(whole, exponent)]
    names: dict[str, str] = {}
    for index, edges in ends.items():
        if len(edges) == 2:
            names[edges[1]] = edges[0]
        else:
            parts.append(tensorgrad.Delta(symbol(index.size), *edges))
    return tensorgrad.Product([p.rename(**{e: names.get(e, e) for e in p.edges}) for p in parts])


def difference(left: Polynomial, right: Polynomial) -> tensorgrad.Tensor:
    terms, weights = [], []
    for side, sign in ((left, 1), (right, -1)):
        output = side.signature.output_indices()
        for term in side.terms:
            terms.append(network(term, output))
            weights.append(sign * term.coefficient)
    return tensorgrad.Sum(terms, weights)


def sides(claim: Claim) -> tuple[Polynomial, Polynomial]:
    """Both sides expanded, with the given equations substituted."""
    specs = [Spec(claim.left), Spec(claim.right)]
    for equation in claim.given:
        name, bracket, _ = equation.partition("[")
        if not bracket or " summed " in equation:
            raise NotExpressible("a declared property or an equation of sizes")
        specs = [substituted(s, equation, specs) if name.strip() in s.parameters else s for s in specs]
    return specs[0].polynomial(), specs[1].polynomial()


def substituted(spec: Spec, equation: str, sides: list[Spec]) -> Spec:
    """The specification with an equation substituted, its letters having the sizes that they have on either side."""
    letters = {
        letter: atoms[0]
        for side in sides
        for sizes in side.resolved.index_sizes
        for letter, atoms in sizes.items()
        if len(atoms) == 1
    }
    declared: list[str] = []
    while True:
        try:
            return spec.substitute(equation, *declared)
        except PolyattnError as error:
            unknown = re.search("the size of index '(.+?)' is not known", str(error))
            if unknown is None or unknown[1] not in letters:
                raise
            declared.append(f"{unknown[1]} : {letters.pop(unknown[1])}")


def timed(call: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
    times, answer = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - start)
    return answer, times


def measure(claim: Claim, repeats: int) -> dict[str, Any]:
    verdict, ours = timed(lambda: prove(claim.left, claim.right, given=claim.given), repeats)
    found: dict[str, Any] = {"claim": claim.name, "holds": claim.holds, "polyattn": verdict.status, "seconds": ours}
    try:
        expression = difference(*sides(claim))
    except (NotExpressible, PolyattnError) as why:
        return found | {"tensorgrad": "not expressed", "why": str(why).splitlines()[0]}
    try:
        left, theirs = timed(lambda: expression.full_simplify(), repeats)
    except Exception as error:  # whatever goes wrong in the other program is its answer
        return found | {"tensorgrad": f"fails: {type(error).__name__}", "why": str(error)[:200]}
    zero = isinstance(left, tensorgrad.Zero) or (isinstance(left, tensorgrad.Sum) and not left.terms)
    return found | {"tensorgrad": "equal" if zero else "not simplified to zero", "tensorgrad seconds": theirs}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    both = [r for r in runs if "tensorgrad seconds" in r]
    agree = [r for r in both if (r["tensorgrad"] == "equal") == r["holds"]]
    ratios = [statistics.median(r["tensorgrad seconds"]) / statistics.median(r["seconds"]) for r in both]
    return {
        "tensorgrad": version("tensorgrad"),
        "claims": len(runs),
        "polyattn decides rightly": sum((r["polyattn"] == "equal") == r["holds"] for r in runs),
        "expressed to tensorgrad": len(both),
        "tensorgrad decides rightly": len(agree),
        "its time over ours, geometric mean": geometric_mean(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    args = arguments(__doc__)
    claims = [claim for theorem in theorems().values() for claim in theorem.claims]
    runs = [measure(c, 2 if args.quick else 7) for c in (claims[:8] if args.quick else claims)]

    def milliseconds(run: dict[str, Any], key: str) -> float | str:
        return 1e3 * statistics.median(run[key]) if key in run else "-"

    rows = [
        (r["claim"], r["polyattn"], milliseconds(r, "seconds"), r["tensorgrad"], milliseconds(r, "tensorgrad seconds"))
        for r in runs
    ]
    show("what each decides", ("claim", "polyattn", "ms", "tensorgrad", "ms"), rows)
    totals = summary(runs)
    show("summary", ("what", ""), list(totals.items()))
    write(args, totals, runs)


if __name__ == "__main__":
    main()
