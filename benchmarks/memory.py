"""Memory limits: ten budgets for every layer of the catalogue, forward and training, against torch's allocator.

The budgets go in even steps from the peak of the plan without a limit down to the smallest one that a plan keeps to.
Each plan runs once; its peak is added up from the profiler's record of the allocator ("allocator"), and from the
storages that torch's dispatcher sees made ("dispatch"), which misses copies that operations make inside. Counted:
output, returned gradients, kept and intermediate values, float32; not inputs, parameters and the output's gradient,
which lies in memory in the order of its axes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any
from weakref import finalize

import torch
from _common import arguments, resumed, show
from _peak import peak_bytes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polyattn import BudgetError, Spec, catalog, lower, plan, training_function
from polyattn.language import value_of

BUDGETS = 10
SIZES = {"B": 2, "N": 96, "C": 32, "H": 12, "W": 12, "G": 2, "K": 4, "R": 8, "S": 3, "U": 4, "V": 4}
"""Numbers of sizes by name; others are 4."""
QUICK = ("nl", "poly_nl", "criss_cross", "cbam_channel")
NEAR = 0.95
"""The share of a plan's figure that is measured at least."""


class Storages(TorchDispatchMode):
    """The most bytes at once of storages that are made within, while they live."""

    def __init__(self, given: Sequence[Tensor]):
        super().__init__()
        self.now = self.most = 0
        self.known = {t.untyped_storage()._cdata for t in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                finalize(storage, self.freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def freed(self, key: int, number: int) -> None:
        self.known.discard(key)
        self.now -= number


def sizes_of(spec: Spec) -> dict[str, int]:
    return {"B": 2} | {n: SIZES.get(n, 4) for n in spec.sizes.atomic if not n.isdigit()}


def measured(made: Any) -> dict[str, int]:
    """Run a plan once; return its peak by both counts."""
    spec, wanted = made.spec, made.objective == "training" or getattr(made, "masked", made).objective == "training"
    shapes = {
        t: [value_of(a, made.sizes) for a in spec.shape(t)] for t in (*spec.inputs, *spec.parameters, spec.output)
    }
    lead = {t: [made.batch, *s] if t in spec.inputs or t == spec.output else s for t, s in shapes.items()}
    output = lead.pop(spec.output)
    tensors, seed = [torch.randn(s).requires_grad_(wanted) for s in lead.values()], torch.randn(output)
    function = training_function(made) if wanted else lower(made)

    def call() -> object:
        result = function(*tensors)
        return result, torch.autograd.grad(result, tensors, seed, allow_unused=True) if wanted else ()

    allocator = peak_bytes(call, "cpu")
    with Storages([*tensors, seed]) as storages:
        held = call()
    del held
    return {"allocator": allocator, "dispatch": storages.most}


def limits(spec: Spec, sizes: Mapping[str, int], objective: str, most: int) -> list[int]:
    """Return the budgets, largest first."""
    try:
        plan(spec, sizes, objective, memory_limit=0)
    except BudgetError as error:
        least = int(re.findall(r"memory_limit=(\d+)", str(error))[-1])
        return [most - (most - least) * k // (BUDGETS - 1) for k in range(BUDGETS)]
    return [0]


def run(name: str, objective: str) -> dict[str, Any]:
    spec = catalog.get(name)
    sizes = sizes_of(spec)
    free = plan(spec, sizes, objective)
    rows, known = [], {}
    for limit in limits(spec, sizes, objective, free.peak_bytes):
        made = plan(spec, sizes, objective, memory_limit=limit)
        if made not in known:
            known[made] = {"peak": made.peak_bytes, **measured(made)}
        rows.append({"limit": limit, **known[made]})
    peaks = [r["peak"] for r in rows]
    return {
        "layer": name,
        "objective": objective,
        "sizes": sizes,
        "same without a limit": plan(spec, sizes, objective, memory_limit=free.peak_bytes) == free,
        "rises": sum(b > a for a, b in pairwise(peaks)),
        "budgets": rows,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [r for run in runs for r in run["budgets"]]
    count: Callable[[Callable[[dict[str, Any]], bool]], int] = lambda test: sum(map(test, rows))  # noqa: E731
    return {
        "layers": len({r["layer"] for r in runs}),
        "budgets": len(rows),
        "above the limit, by the allocator": count(lambda r: r["allocator"] > r["limit"]),
        "above the limit, by dispatch": count(lambda r: r["dispatch"] > r["limit"]),
        "within 5 % of the plan's figure, by the allocator": count(
            lambda r: NEAR * r["peak"] <= r["allocator"] <= r["peak"]
        ),
        "rises of the peak when the budget falls": sum(r["rises"] for r in runs),
        "plans that a limit they keep to changes": sum(not r["same without a limit"] for r in runs),
        "layers above a limit": sorted(
            {r["layer"] for r in runs if any(b["allocator"] > b["limit"] for b in r["budgets"])}
        ),
    }


def main() -> None:
    args = arguments(__doc__, resumable=True)
    names = QUICK if args.quick else catalog.names()
    cases = {f"{n} {o}": partial(run, n, o) for n in names for o in ("forward", "training")}
    found = summary(resumed(args, cases, summary))
    show("memory limits", ("", ""), [(k, str(v)) for k, v in found.items()])


if __name__ == "__main__":
    main()
