"""The atlas of the catalogue: its layers, proved relations and edges; each layer's cost as written and as planned.

Counts, which no machine changes, but for the seconds of the whole atlas on two processes.

python benchmarks/atlas.py --out benchmarks/results/atlas.json
python benchmarks/atlas.py --part entries --out benchmarks/results/atlas_entries.json
"""

from __future__ import annotations

import time
from typing import Any

import torch
from _common import arguments, show, write

import polyattn as pa
from polyattn import catalog
from polyattn.language.sizes import number_of
from polyattn.study.atlas import build
from polyattn.study.report.sizes import start

PARTS = ("relations", "entries")
QUICK = ("nl", "e_nl", "poly_nl", "cp_nl", "latent_gnn")


def relations(names: tuple[str, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the numbers of the atlas, and its edges with their conditions."""
    began = time.perf_counter()
    atlas = build(names, processes=2)
    seconds = time.perf_counter() - began
    runs = [{"from": e.first, "to": e.second, "condition": e.relation.condition} for e in atlas.edges]
    summary = {
        "entries": len(names),
        "pairs": len(names) * (len(names) - 1),
        "proved": len(atlas.found),
        "edges": len(atlas.edges),
        "classes": [list(c) for c in atlas.classes if len(c) > 1],
        "candidates": atlas.searched,
        "searches cut short": len(atlas.cut),
        "seconds on two processes": round(seconds, 1),
    }
    return summary, runs


def entry(name: str) -> dict[str, Any]:
    """Return the error of a layer's lowered form against its loops, and its multiply-accumulates at usual sizes."""
    found = catalog.entry(name)
    spec, small = found.spec, dict(found.facts.sizes)
    known = spec.sizes.solve(small, spec.sizes.names)
    draw = torch.Generator().manual_seed(0)
    tensors = {
        n: 0.5 + torch.rand([number_of(s, known) for s in shape], generator=draw, dtype=torch.float64)
        for n, shape in {**spec.inputs, **spec.parameters}.items()
    }
    values = [t[None] if n in spec.inputs else t for n, t in tensors.items()]
    ours = pa.lower(pa.plan(spec, small))(*values)
    theirs = torch.from_numpy(found.reference({n: t.numpy() for n, t in tensors.items()}))
    ours = ours.reshape(theirs.shape) if ours.numel() == theirs.numel() else ours[0]
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
    sizes = start(spec, {"B": 1})
    macs = {}
    for objective in ("as_written", "forward", "training"):
        plan = pa.plan(spec, sizes, objective, cost="macs")
        macs[objective] = plan.training_macs if objective == "training" else plan.macs
    return {"entry": name, "error": error, "sizes": sizes, "macs": macs}


def main() -> None:
    args = arguments(__doc__, PARTS)
    names = QUICK if args.quick else catalog.names()
    if args.part == "relations":
        summary, runs = relations(names)
        show("the atlas", ("what", "number"), list(summary.items()))
    else:
        runs = []
        for name in names:
            try:
                runs.append(entry(name))
            except (pa.PolyattnError, KeyError, ValueError) as error:
                runs.append({"entry": name, "refused": str(error)[:200]})
        done = [r for r in runs if "macs" in r]
        summary = {
            "entries": len(names),
            "lowered within 1e-10 of the loops": sum(r["error"] < 1e-10 for r in done),
            "planned below the author's order": sum(r["macs"]["forward"] < r["macs"]["as_written"] for r in done),
            "planned above the author's order": sum(r["macs"]["forward"] > r["macs"]["as_written"] for r in done),
            "not counted": {r["entry"]: r["refused"] for r in runs if "refused" in r},
        }
        show("entries", ("entry", "error", "as written", "planned", "training"),
             [(r["entry"], f"{r['error']:.1e}", *(f"{m:,}" for m in r["macs"].values())) for r in done])  # fmt: skip
    write(args, summary, runs)


if __name__ == "__main__":
    main()
