"""Judge mutants of polyattn's Triton kernels exactly, and by `allclose` beside it.

Faults (bounds, offsets, masks, strides, operators, order, accumulators) are put into the kernels one at a time by
`_mutations.py`; each mutant runs the claims of `_kernel_cases.py` in a process of its own:

- exactly: `pa.verify(kernel, equation, level="modular")`; a difference, an access outside of a tensor or an error;
- by `torch.allclose(rtol=1e-2)` against the equation in float64, at the same sizes, on normal numbers in float32.

A mutant that passes all claims exactly is compared with the kernel as it was on float32 tensors at other random sizes:
it is "missed" if their distance is more than 1e-5 of the norm, else "the same function". Changes of form (a + b as
b + a, a < b as b > a) must be accepted.

    python benchmarks/kernel_mutants.py --faults 560 --forms 40     # about 5 minutes on two cores
    python benchmarks/kernel_mutants.py --quick
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
from _kernel_cases import CASES, ENTRIES, Case
from _mutations import Mutant, called, mutants

import polyattn as pa
from polyattn.kernels import runtime

ROOT = Path(__file__).parents[1] / "polyattn" / "kernels"
RESULTS = Path(__file__).parent / "results" / "kernel_mutants.json"
FILES = ("blocks.py", *(f"{n}/triton.py" for n in ("gram", "hadamard_mean", "project", "bilinear", "linear_attention")),
         "linear_attention/programs.py")  # fmt: skip
SECONDS = 20
"""Processor time for all claims of one mutant: one that takes longer does not end."""


def module_of(file: str) -> str:
    return "polyattn.kernels." + file.removesuffix(".py").replace("/", ".")


def load(mutant: Mutant, folder: Path) -> None:
    """Put a mutant into the place of its module; all kernels are imported anew, with it."""
    path = folder / f"mutant_{os.getpid()}.py"
    path.write_text(mutant.source)
    for file in (*FILES, "cross_gram/triton.py"):
        sys.modules.pop(module_of(file), None)
    name = module_of(mutant.file)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


@cache
def functions_of(name: str) -> set[str]:
    """Return the functions that a claim may run."""
    files = CASES[name].files
    return called({file: (ROOT / file).read_text() for file in files}, ENTRIES[name])


def claims(mutant: Mutant) -> dict[str, Case]:
    """Return the claims that may run a mutant's function, the cheapest first."""
    found = {n: c for n, c in CASES.items() if mutant.file in c.files and mutant.function in functions_of(n)}
    return dict(sorted(found.items(), key=lambda item: prod(item[1].sizes.values())))


def sizes_of(case: Case, spec: pa.Spec) -> dict[str, int]:
    return {n: v for n, v in case.sizes.items() if spec.sizes.parts(n) is None and n != "B"}


def exactly(case: Case, sizes: dict[str, int]) -> str:
    """Return the fault that an exact check finds, or ""."""
    try:
        check = pa.verify(case, case.text, sizes, dtype=case.dtype, seed=0)
    except pa.PolyattnError as error:
        return f"refused: {error}"
    wrong = [c for c in check.checks if c.failure or c.difference is not None]
    return str(check)[-200:] if wrong else ""


def tensors_for(spec: pa.Spec, sizes: dict[str, int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    full = pa.plan(spec, sizes, "as_written").sizes

    def shape(tensor: str) -> tuple[int, ...]:
        axes = (spec.inputs | spec.parameters)[tensor]
        lengths = tuple(int(a) if a.isdigit() else full[a] for a in axes)
        return (2, *lengths) if tensor in spec.inputs else lengths

    return [torch.randn(shape(t), generator=generator) for t in (*spec.inputs, *spec.parameters)]


def by_allclose(case: Case, spec: pa.Spec, sizes: dict[str, int]) -> bool:
    """Return whether a mutant passes `allclose(rtol=1e-2)` on normal numbers."""
    # In float32: rounding to 16 bits alone may exceed the tolerance, and would count as noticed.
    given = tensors_for(spec, sizes, 1)
    wanted = pa.lower(pa.plan(spec, sizes | {"B": 2}, "as_written"))(*(t.double() for t in given))
    have = case(*given)
    return have.shape == wanted.shape and torch.allclose(have.double(), wanted, rtol=1e-2, atol=1e-3)


def other_sizes(case: Case, spec: pa.Spec, draw: random.Random) -> dict[str, int]:
    fixed = {"S", "T", "G"} if "block" in case.files[0] or "bilinear" in case.files[0] else set()
    return {n: v if n in fixed else draw.randint(1, 24) if v > 8 else draw.randint(1, 9)
            for n, v in sizes_of(case, spec).items()}  # fmt: skip


@cache
def unedited(name: str) -> torch.Tensor:
    return results(name)


def results(name: str) -> torch.Tensor:
    """Return a claim's result in float32 at other sizes."""
    case = CASES[name]
    spec = pa.Spec(case.text)
    return case(*tensors_for(spec, other_sizes(case, spec, random.Random(len(name))), 5)).double()


def study(mutant: Mutant, folder: Path) -> dict[str, Any]:
    """Return what the checks say of one mutant; runs in a process of its own."""
    try:
        load(mutant, folder)
    except Exception as error:
        return {"exact": f"not imported: {type(error).__name__}", "claim": ""}
    found: dict[str, Any] = {"exact": "", "claim": ""}
    for name, case in claims(mutant).items():
        spec = pa.Spec(case.text)
        sizes = sizes_of(case, spec)
        if fault := exactly(case, sizes):
            found |= {"exact": fault, "claim": name}
            break
    return found


def loosely(mutant: Mutant, folder: Path, first: str) -> dict[str, Any]:
    """Return whether a mutant passes `allclose` in all claims; the one that refuted it comes first."""
    load(mutant, folder)
    every = claims(mutant)
    order = [every[n] for n in sorted(every, key=lambda n: n != first)]
    return {"allclose": all(by_allclose(c, s := pa.Spec(c.text), sizes_of(c, s)) for c in order)}


def compared(mutant: Mutant, folder: Path, before: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return whether a mutant has the values of the kernel."""
    load(mutant, folder)
    return {"same": all(alike(results(name), value) for name, value in before.items())}


def alike(have: torch.Tensor, want: torch.Tensor) -> bool:
    """Return whether two results differ by rounding of float32 at most, as of sums in another order."""
    far = torch.linalg.vector_norm(have - want) / torch.linalg.vector_norm(want).clamp_min(1e-6)
    return bool(far < 1e-5)


def forked(jobs: Iterable[tuple[Any, Callable[[], Any]]], processes: int) -> dict[Any, Any]:
    """Run functions in forked processes, so many at a time; None for one that dies or takes too long."""
    waiting, running, found = list(jobs)[::-1], {}, {}
    while waiting or running:
        while waiting and len(running) < processes:
            key, job = waiting.pop()
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(reading)
                signal.signal(signal.SIGPROF, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                try:
                    result = job()
                except BaseException as error:
                    result = {"error": f"{type(error).__name__}: {str(error)[:100]}"}
                with os.fdopen(writing, "wb") as pipe:
                    pickle.dump(result, pipe)
                os._exit(0)
            os.close(writing)
            running[reading] = (key, pid)
        for pipe in select.select(list(running), [], [], 1)[0]:
            key, pid = running.pop(pipe)
            with os.fdopen(pipe, "rb") as file:
                data = file.read()
            os.waitpid(pid, 0)
            found[key] = pickle.loads(data) if data else None
    return found


def drawn(faults: int, forms: int, seed: int = 0) -> tuple[list[Mutant], int]:
    """Return so many faults and changes of form in functions of claims, and how many faults there are."""
    every = [m for file in FILES for m in mutants(file, (ROOT / file).read_text()) if claims(m)]
    random.Random(seed).shuffle(every)
    wrong, same = [m for m in every if m.kind != "form"], [m for m in every if m.kind == "form"]
    return wrong[:faults] + same[:forms], len(wrong)


def judged(chosen: list[Mutant], folder: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """Judge mutants, as many as there is time for."""
    end, rows = time.monotonic() + seconds, []
    for start in range(0, len(chosen), 8 * processes):
        if time.monotonic() > end:
            break
        part = chosen[start : start + 8 * processes]
        exact = forked(((k, lambda m=m: study(m, folder)) for k, m in enumerate(part)), processes)
        wrong = [k for k, m in enumerate(part) if m.kind != "form"]
        first = {k: (exact[k] or {}).get("claim", "") for k in wrong}
        loose = forked(((k, lambda m=part[k], n=first[k]: loosely(m, folder, n)) for k in wrong), processes)
        passed = [k for k in wrong if exact[k] and not exact[k].get("exact") and "error" not in exact[k]]
        before = {k: {n: unedited(n) for n in claims(part[k])} for k in passed}
        same = forked(((k, lambda m=part[k], b=before[k]: compared(m, folder, b)) for k in passed), processes)
        for k, mutant in enumerate(part):
            row = {"file": mutant.file, "line": mutant.line, "kind": mutant.kind, "change": mutant.change}
            found = exact[k] or {"exact": "it does not end, or ends the process", "claim": ""}
            fault = found.get("exact") or found.get("error", "")
            row |= {"exact": fault[:160], "claim": found.get("claim", "")}
            if mutant.kind != "form":
                row["allclose"] = bool((loose[k] or {}).get("allclose", False))
                if not fault:
                    row["same function"] = bool((same[k] or {}).get("same", False))
            rows.append(row)
            status = "caught" if fault else "same function" if row.get("same function", True) else "MISSED"
            print(
                f"{status:14} {mutant.file}:{mutant.line} {mutant.kind}: {mutant.change[:80]} {fault[:60]}", flush=True
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count verdicts, in all and by kind."""

    def counts(part: list[dict[str, Any]]) -> dict[str, int]:
        same = [r for r in part if not r["exact"] and r["same function"]]
        changed = [r for r in part if r not in same]
        return {
            "faults": len(part), "same function": len(same), "change the function": len(changed),
            "caught": sum(bool(r["exact"]) for r in changed), "missed": sum(not r["exact"] for r in changed),
            "pass allclose": sum(r["allclose"] for r in changed),
        }  # fmt: skip

    faults, forms = [r for r in rows if r["kind"] != "form"], [r for r in rows if r["kind"] == "form"]
    kinds = {k: counts([r for r in faults if r["kind"] == k]) for k in sorted(Counter(r["kind"] for r in faults))}
    refused = sum(bool(r["exact"]) for r in forms)
    return {**counts(faults), "changes of form": len(forms), "refused": refused, "kinds": kinds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=560)
    parser.add_argument("--forms", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing afterwards; the next run goes on")
    parser.add_argument("--quick", action="store_true", help="12 faults and 3 forms, nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not runtime.has_triton():
        raise SystemExit("kernels are judged with Triton installed")
    begun = time.monotonic()
    for name in ("gram of columns", "linear_query"):  # so that forked processes find all that is imported
        case = CASES[name]
        spec = pa.Spec(case.text)
        exactly(case, sizes_of(case, spec))
        by_allclose(case, spec, sizes_of(case, spec))
    chosen, available = drawn(*((12, 3) if options.quick else (options.faults, options.forms)))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() and not options.quick else {"mutants": [], "seconds": 0}
    done = {(r["file"], r["line"], r["kind"], r["change"]): r for r in known["mutants"]}
    left = [m for m in chosen if (m.file, m.line, m.kind, m.change) not in done]
    with tempfile.TemporaryDirectory(prefix="polyattn-mutants-") as folder:
        rows = judged(left, Path(folder), options.jobs, options.seconds - (time.monotonic() - begun))
    done |= {(r["file"], r["line"], r["kind"], r["change"]): r for r in rows}
    rows = [done[key] for m in chosen if (key := (m.file, m.line, m.kind, m.change)) in done]
    found = summary(rows)
    print(json.dumps(found, indent=1))
    if not options.quick:
        seconds = round(known["seconds"] + time.monotonic() - begun)
        data = {"torch": torch.__version__, "processes": options.jobs, "seconds": seconds,
                "faults available": available, **found, "mutants": rows}  # fmt: skip
        RESULTS.write_text(json.dumps(data, indent=1) + "\n")
    return int(bool(found["missed"] or found["refused"]))


if __name__ == "__main__":
    sys.exit(main())
