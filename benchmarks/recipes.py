"""The costs of the layers of docs/recipes.md, as written and as planned; counts, which no machine changes.

python benchmarks/recipes.py --out benchmarks/results/recipes.json
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from _common import arguments, show, write

import polyattn as pa

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
SIZES = {"N": 784, "M": 64, "C": 256, "E": 256, "D": 32, "H": 8, "G": 2, "Q": 16, "R": 64, "O": 64, "K": 16, "S": 32}
OTHER = {
    "Cross-attention": {"M": 196},
    "Masked attention": {"D": 256},
    "2-simplicial attention": {"N": 196},
    "Axial attention": {"H": 28, "W": 28},
    "Gated linear unit": {"H": 1024},
    "Token mixing": {"H": 384},
    "Convolution": {"H": 56, "W": 56, "C": 64, "D": 64},
    "Depthwise convolution with stride": {"H": 56, "W": 56, "S": 28, "T": 28},
    "Neighbourhood attention": {"H": 56, "W": 56, "C": 64},
    "Triangle multiplication": {"N": 128, "C": 128, "D": 128},
    "Outer product mean": {"N": 128},
}


def case(name: str, text: str) -> dict[str, Any]:
    spec = pa.Spec(text)
    given = {**SIZES, **OTHER.get(name, {})}
    if len(spec.sizes.parts("C") or ()) > 1:
        given = {size: n for size, n in given.items() if size not in ("H", "K")}  # they follow from C, D and G
    sizes = {size: n for size, n in given.items() if size in spec.sizes.names}
    plans = {objective: pa.plan(spec, sizes, objective) for objective in ("as_written", "forward")}
    costs = {objective: {"macs": p.macs, "peak bytes": p.peak_bytes} for objective, p in plans.items()}
    return {"layer": name, "sizes": {s: n for s, n in plans["forward"].sizes.items() if not s.isdigit()}, **costs}


def main() -> None:
    args = arguments(__doc__)
    recipes = re.findall(r"^### (.+?)\n.*?```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    runs = [case(name, text) for name, text in recipes[: 3 if args.quick else None]]
    rows = [[r["layer"], *(r[o]["macs"] for o in ("as_written", "forward"))] for r in runs]
    show("multiply-accumulates of layers to copy", ["layer", "as written", "planned"], rows)
    write(args, {"sizes": SIZES}, runs)


if __name__ == "__main__":
    main()
