"""The demo: all stages on real input, within three minutes on two cores.

Equations are checked against the explicit order-8 polynomial, planned, inserted into ResNet-50 on two photographs,
and trained inside a small ResNet on handwritten digits. Tables and plots end in one folder.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.lowering import plan

from .digits import train_all
from .facts import check_facts
from .photographs import run_photographs
from .pictures import draw

SIZES = {"H": 28, "W": 28, "N": 784, "C": 512, "R": 64, "V": 64, "G": 4, "K": 4}
"""The feature map of ResNet-50's Res3 at 224 pixels, and the papers' inner sizes."""


NEXT = """
Where to look next:
  docs/recipes.md      thirty-nine layers to copy, each with its cost
  docs/tutorial.md     from an equation on paper to a trained network
  examples/            short files: a ViT block on its plan, Swin's windows, a causal layer, a kernel judged
  polyattn serve       a page that plans and proves what you type"""


def layers() -> dict[str, Spec]:
    """Return the four layers of the demo. NL divides by the number of positions, as its dot-product version does."""
    return {
        # The catalogue's NL has one matrix for the value; the mean goes into it.
        "NL": catalog.get("nl").substitute("wg[h,b] = 1/N*wv[h,b]"),
        "Poly-NL": catalog.get("poly_nl"),
        "E-NL": catalog.get("e_nl"),
        "BA-Transform": catalog.get("ba_transform"),
    }


def run(out: Path, console: Console, *, quick: bool = False) -> bool:
    """Run all parts, write their tables and plots to a folder, and say whether every check held."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    specs = layers()
    console.rule("1. Equations: each form against its definition")
    facts = check_facts(specs, console)
    console.rule("2. Plans: the cheapest order of contraction")
    plans = print_plans(specs, console)
    console.rule("3. ResNet-50 on two photographs")
    photographs = run_photographs(specs, console, out)
    console.rule("4. A small ResNet on handwritten digits")
    digits = train_all(specs, console, seeds=1 if quick else 3, epochs=1 if quick else 4)
    results = {
        "machine": machine(),
        "facts": facts,
        "plans": plans,
        "photographs": photographs,
        "digits": digits,
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(results, out)
    ok = all(f["holds"] for f in facts)
    console.rule("done")
    console.print(
        f"{sum(f['holds'] for f in facts)} of {len(facts)} checks hold; {time.perf_counter() - started:.0f} s"
    )
    console.print(f"tables and plots are in {out}/: {', '.join(sorted(p.name for p in out.iterdir()))}")
    console.print(NEXT)
    return ok


def print_plans(specs: dict[str, Spec], console: Console) -> list[dict[str, Any]]:
    """Print the plan of multi-head attention and of each layer at Res3's sizes, and its savings."""
    rows = []
    attention = {"multi-head attention": catalog.get("multi_head")}
    for name, spec in (attention | specs).items():
        sizes = {"B": 1, **{s: SIZES[s] for s in spec.sizes.names if s in SIZES}}
        if name in attention:
            sizes = {"B": 1, "N": 784, "C": 512, "H": 8}
        best, written = plan(spec, sizes), plan(spec, sizes, "as_written")
        console.print(
            f"[bold]{name}[/bold]: {written.macs / 1e6:,.1f} M MACs as written, {best.macs / 1e6:,.1f} M planned"
        )
        # The plan's brackets are not rich's markup.
        console.print(str(best), highlight=False, markup=False, soft_wrap=True)
        console.print()
        rows.append({"layer": name, "sizes": sizes, "macs_as_written": written.macs, "macs_planned": best.macs,
                     "complexity": str(best.complexity), "plan": str(best)})  # fmt: skip
    return rows


def machine() -> dict[str, Any]:
    """Return the machine of the measurements."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }
