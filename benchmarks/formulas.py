"""The study's formulas against what torch counts, on generated specifications and sizes.

Each specification comes from the whole language (`polyattn.testing.specifications`), with sizes from 1 to 40 and a
batch from 1 to 5. In each of the author's order, opt_einsum's and the planner's, and for the planner's with its planned
backward pass, the sympy formula of `polyattn.study` is evaluated at the sizes and compared with the
multiply-accumulates that torch makes when it runs the lowered graph on tensors without data: matrix products by
`FlopCounterMode` (FLOPs / 2), products of two tensors entry by entry by the size of their result. Scaling, adding and
functions count nothing on either side. Nothing is timed.

Where a summed index lies beside another one in memory, lowering may fill a small matrix up with zeros (P becomes P ⊗ I)
and multiply by those rather than copy the larger operand. Where the counts differ, the graph is lowered once more
without that, and has to take what the formula says.

    python benchmarks/formulas.py --out benchmarks/results/formulas.json
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from _common import arguments, show, write
from _drawn import drawn
from hypothesis import strategies as st

from polyattn import Spec
from polyattn.lowering import graphs, products
from polyattn.study import complexity
from polyattn.study.counted import counted
from polyattn.testing import specifications

SPECIFICATIONS = 500
LARGEST = 40


@contextmanager
def nothing_filled() -> Iterator[None]:
    """Lowering that never fills a matrix up with zeros."""
    caches = (graphs._lower, graphs._lower_backward)
    for cache in caches:
        cache.cache_clear()
    with mock.patch.object(products, "_tied", return_value=()):
        yield
    for cache in caches:
        cache.cache_clear()


def compare(spec: Spec, sizes: dict[str, int], batch: int) -> list[dict[str, Any]]:
    """One run for each order, and one for the planned backward pass where there is one."""
    found = []
    for objective, orders in (("forward", ("as written", "opt_einsum", "planned")), ("training", ("planned",))):
        study = complexity({"layer": spec}, objective, orders=orders, B=batch, **sizes)
        for formulas, case in zip(study.formulas["layer"], study.cases, strict=True):
            if objective == "training" and case.plan.backward is None:
                continue  # functions: autograd's own backward pass, which no graph of polyattn computes
            torchs = counted(case.plan)
            bare = torchs
            values = {s: case.sizes[s.name] for s in formulas.macs.free_symbols}
            macs = int(formulas.macs.subs(values))
            if torchs.macs != macs:
                with nothing_filled():
                    bare = counted(case.plan)
            found.append(
                {
                    "spec": str(spec),
                    "sizes": {"B": batch, **sizes},
                    "objective": objective,
                    "order": case.order,
                    "formula": str(formulas.macs),
                    "macs": macs,
                    "matrix": torchs.matrix,
                    "elementwise": torchs.elementwise,
                    "macs without zeros": bare.macs,
                }
            )
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[Spec, dict[str, int], int]:
    spec = draw(specifications())
    sizes = {name: draw(st.integers(1, LARGEST)) for name in spec.sizes.atomic}
    return spec, sizes, draw(st.integers(1, 5))


def runs(count: int) -> list[dict[str, Any]]:
    """The comparisons of so many different specifications; the same every time."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number in itertools.count():
        made = drawn(cases(), f"formulas {number}")
        if made is not None and str(made[0]) not in found:
            found[str(made[0])] = compare(*made)
            if len(found) == count:
                break
    return [run for several in found.values() for run in several]


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    more = [r for r in found if r["macs"] < r["matrix"] + r["elementwise"]]
    return {
        "specifications": len({r["spec"] for r in found}),
        "comparisons": len(found),
        "equal": sum(r["macs"] == r["matrix"] + r["elementwise"] for r in found),
        "equal once lowering multiplies by no zeros": sum(r["macs"] == r["macs without zeros"] for r in more),
        "different": sum(r["macs"] != r["macs without zeros"] for r in found),
        "with matrix products": sum(r["matrix"] > 0 for r in found),
        "with elementwise products": sum(r["elementwise"] > 0 for r in found),
        "with a planned backward pass": sum(r["objective"] == "training" for r in found),
        "with functions": len({r["spec"] for r in found if not Spec(r["spec"]).is_polynomial}),
    }


def main() -> None:
    args = arguments(__doc__)
    found = runs(20 if args.quick else SPECIFICATIONS)
    totals = summary(found)
    write(args, totals, found)
    show("formulas against counts", ("what", "how many"), list(totals.items()))
    assert totals["different"] == 0, "a formula is not what torch counts"


if __name__ == "__main__":
    main()
