"""Tables of what layers and plans cost: arithmetic, time and memory."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from math import exp, log
from statistics import mean, median
from typing import Any

from records import load, milliseconds, table

from polyattn import catalog

LAYERS = {
    "TESA": "TESA",
    "NL": "NL without softmax",
    "L-GNN": "Latent-GNN",
    "E-NL": "E-NL without softmax",
    "Poly-NL": "Poly-NL",
    "BA-Transform": "BA-Transform, block-based",
}
"""The layers of Figure 2, as its record and as the pages call them."""


def figure2() -> str:
    """One layer at N = 16384, C = 64: milliseconds in three forms, forward and in training."""
    head = [
        "layer",
        "forward: paper's form",
        "planned",
        "to install",
        "training: paper's form",
        "planned",
        "to install",
    ]
    return table(head, _figure2(("forward", "training"), lambda cell: milliseconds(cell["seconds"])))


def figure2_memory() -> str:
    """The same cells: the peak of the allocator."""
    head = ["layer", "peak in training: paper's form", "planned", "to install"]
    return table(head, _figure2(("training",), lambda cell: f"{cell['peak bytes'] / 2**20:,.0f} MiB"))


def _figure2(passes: Sequence[str], shown: Callable[[dict[str, Any]], str]) -> list[list[str]]:
    cells = {
        (c["layer"], c["pass"], c["form"]): c
        for c in load("figure2_cpu")["cells"]
        if (c["axis"], c["N"], c["C"]) == ("positions", 16384, 64)
    }
    forms = ("paper", "planned", "best")
    rows = [(LAYERS[name], [cells[name, p, f] for p in passes for f in forms]) for name in LAYERS]
    return [[name, *(shown(c) if "seconds" in c else c["left out"] for c in row)] for name, row in rows]


def recipes() -> str:
    """Multiply-accumulates and peak of the layers of docs/recipes.md, as written and as planned."""
    head = ["layer", "sizes", "MACs as written", "planned", "peak as written", "planned"]
    rows = []
    for run in load("recipes")["runs"]:
        sizes = " ".join(f"{name}={number}" for name, number in run["sizes"].items())
        macs, peaks = ([run[o][what] for o in ("as_written", "forward")] for what in ("macs", "peak bytes"))
        shown = [f"{n / 1e6:,.1f} M" for n in macs], [f"{n / 2**20:,.2f} MiB" for n in peaks]
        rows.append([run["layer"], sizes, *shown[0], *shown[1]])
    return table(head, rows)


def macs() -> str:
    """Multiply-accumulates of plans against other orders."""
    summary = load("macs")["summary"]
    names = {
        "the author's order": "written",
        "opt_einsum, `optimal`": "opt_einsum",
        "cotengra, best of 128 trials": "cotengra",
        "for training: autograd of the author's order": "training against autograd of the author's order",
        "for training: autograd of the planned order": "training against autograd of the planned order",
    }
    head = ["against", "cases", "plan above", "plan below", "theirs over the plan's, geometric mean", "most"]
    rows = []
    for name, key in names.items():
        s = summary[key]
        most = f"{s['most']:,.0f}" if s["most"] > 100 else f"{s['most']:.2f}"
        rows.append([name, s["cases"], s["above"], s["strictly below"], f"{s['geometric mean']:.2f}", most])
    return table(head, rows)


def layers() -> str:
    """Time of other forms over the planned form's."""
    runs = load("layers_cpu")["runs"]
    names = {
        "paper": "the paper's form",
        "einsum": "`torch.einsum` with opt_einsum",
        "compiled": "`torch.compile` of the paper's form",
    }
    rows = []
    for which in ("forward", "forward + backward"):
        for key, name in names.items():
            ratios = [r["ratios"][key] for r in runs if r["pass"] == which and key in r["ratios"]]
            geometric, few = exp(mean(map(log, ratios))), sum(ratio < 0.95 for ratio in ratios)
            rows.append([which, name, len(ratios), f"{geometric:.2f}", f"{min(ratios):.2f}", few, f"{max(ratios):.3g}"])
    head = [
        "pass",
        "theirs over the planned form's, medians",
        "points",
        "geometric mean",
        "least",
        "below 0.95",
        "most",
    ]
    return table(head, rows)


def bat() -> str:
    """Blocks against timm's, over ResNet-50's stages at 224 and 448 pixels: from the least to the most."""
    found = load("bat_cpu")["runs"]
    rows = []
    for block, part in (("BilinearAttnTransform", "transform"), ("BatNonLocalAttn", "bat"), ("NonLocalAttn", "nl")):
        for pixels in dict.fromkeys(r["pixels"] for r in found):
            runs = [r for r in found if (r["block"], r["pixels"]) == (part, pixels)]
            cells = [f"`{block}`", pixels]
            for key in ("times faster", "times less memory"):
                for which in ("evaluation", "training"):
                    ratios = [r[key] for r in runs if r["pass"] == which]
                    cells.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
            rows.append(cells)
    head = [
        "against timm's",
        "pixels",
        "evaluation: times as fast",
        "training",
        "evaluation: times less memory",
        "training",
    ]
    return table(head, rows)


def planning() -> str:
    """What a plan costs to make, and to get from the cache."""
    s = load("planning_cost")["summary"]
    rows = [
        ["a plan at new sizes, the slowest layer's median", f"{s['worst median ms at new sizes']:.0f} ms"],
        ["the same plan again, from the cache", f"{s['worst median µs from the cache']:.0f} µs"],
    ]
    rows += [
        [f"a layer's {m['pass']} over the same operations as a {m['against']}", f"{m['ratio']:.2f}"]
        for m in s["module"]
    ]
    return table(["", "measured"], rows)


def chosen() -> str:
    """The planned choice against timing every candidate."""
    runs = load("chosen")["runs"]
    rows = []
    for which in dict.fromkeys(r["pass"] for r in runs):
        over = [r["chosen / fastest"] for r in runs if r["pass"] == which]
        near = sum(ratio <= 1.1 for ratio in over)
        share = f"{near / len(over):.0%}"
        rows.append([which, len(over), f"{near} ({share})", f"{exp(mean(map(log, over))):.3f}", f"{max(over):.2f}"])
    head = ["pass", "points", "within 10 % of the fastest candidate", "chosen over fastest, geometric mean", "most"]
    return table(head, rows)


def functions() -> str:
    """Layers with functions: the planned backward pass against autograd's."""
    names = {"nl": "NL with softmax", "e_nl": "E-NL with softmax"}
    points = dict.fromkeys((r["B"], r["N"], r["C"]) for r in load("functions")["runs"])
    by = {(r["layer"], r["B"], r["N"], r["C"]): r for r in load("functions")["runs"]}

    def cell(run: dict[str, Any]) -> str:
        return f"{run['planned / autograd']:.2f}{' (taken)' if run['chosen'] == 'planned' else ''}"

    rows = [[names[name], *(cell(by[(name, *p)]) for p in points)] for name in names]
    return table(["planned over autograd's", *(f"{b} x {n} x {c}" for b, n, c in points)], rows)


def huge_pages() -> str:
    """Large maps on a processor, with pages of 4 KiB and of 2 MiB."""
    runs = load("huge_pages")["runs"]
    passes = ("forward", "forward + backward")
    by = {(r["layer"], r["B"], r["pass"]): r for r in runs}
    names = {"poly_nl": "Poly-NL", "e_nl": "E-NL without softmax", "ba_transform_block": "BA-Transform, block-based"}
    rows = []
    for batch in sorted({r["B"] for r in runs}):
        for layer, name in names.items():
            row: list[object] = [
                name,
                f"{batch} x {by[layer, batch, 'forward']['N']} x {by[layer, batch, 'forward']['C']}",
            ]
            for which in passes:
                run = by[layer, batch, which]
                row += [milliseconds(median(run["seconds"]["4 KiB"])), f"{run['times faster']:.2f}"]
            rows.append(row)
    head = ["layer", "B x N x C", "forward", "times faster with 2 MiB", "forward + backward", "times faster with 2 MiB"]
    return table(head, rows)


def kept() -> str:
    """What Poly-NL keeps for its backward pass, over the input's bytes."""
    head = ["N", "C", "B", "planned, bytes kept over the input's", "paper's form"]
    rows = [
        [r["N"], r["C"], r["B"], f"{r['planned / input']:.2f}", f"{r['paper / input']:.2f}"]
        for r in load("kept")["runs"]
    ]
    return table(head, rows)


def filling() -> str:
    """A product along parts of an axis, filled up with zeros: its time over that of the best way without."""
    runs = load("filling")["runs"]
    lengths = list(dict.fromkeys(r["v"] for r in runs))
    rows = []
    for blocks in dict.fromkeys(r["s"] for r in runs):
        own = {r["v"]: {way: median(t) for way, t in r["seconds"].items()} for r in runs if r["s"] == blocks}
        best = {v: min(t for way, t in took.items() if way != "filled") for v, took in own.items()}
        rows.append([blocks, *(f"{own[v]['filled'] / best[v]:.2f}" for v in lengths)])
    return table(["blocks", *(f"{v} values in a block" for v in lengths)], rows)


def filling_layer() -> str:
    """BA-Transforms by the longest identity that is filled up: times over those with the limit that polyattn has."""
    rows = []
    for run in load("filling_layer")["runs"]:
        took = {int(limit): median(t) for limit, t in run["seconds"].items()}
        others = (f"{took[limit] / took[8]:.2f}" for limit in (4, 16))
        rows.append([f"{run['s']} x {run['s']}", run["v"], run["pass"], *others])
    return table(["blocks", "values in a block", "pass", "at most 4", "at most 16"], rows)


def chunked() -> str:
    """Layers on files that are larger than memory."""
    rows = [
        [
            {"poly_nl": "Poly-NL", "e_nl softmax": "E-NL with softmax"}[r["layer"]],
            f"{r['map_bytes'] / 1e9:g} GB",
            f"{r['positions'] / 1e6:.1f} million",
            f"{max(r[p]['rss_anon'] for p in ('forward', 'backward')) / 1e6:.0f} MB",
            *(f"{r[p]['cpu_seconds'] / r['map_bytes'] * 1e9:.1f} s" for p in ("forward", "backward")),
        ]
        for r in load("chunked")["runs"]
    ]
    head = ["64 channels", "map", "positions", "memory at most", "forward, processor's time for a GB", "backward"]
    return table(head, rows)


def causal() -> str:
    """Causal layers as they run, with masks, and what torch has for them."""
    others = {"plain chunks": "chunks in plain torch", "scaled_dot_product_attention": "torch's fused kernel"}
    rows = []
    for run in (r for r in load("causal")["runs"] if r["part of the benchmark"] == "times"):
        seconds = run["seconds"]
        (other,) = others.keys() & seconds.keys()
        masked = milliseconds(seconds["masked"]) if "masked" in seconds else ""
        torch = f"{milliseconds(seconds[other])} ({others[other]})"
        rows.append([f"`{run['layer']}`, {run['part']}", milliseconds(seconds["layer"]), masked, torch])
    return table(["N = 4096, 32 channels", "layer", "with masks", "torch"], rows)


def decoding() -> str:
    """Microseconds of a step behind so many positions."""
    found: dict[str, dict[int, float]] = {}
    for run in (r for r in load("causal")["runs"] if r["part of the benchmark"] == "decoding"):
        found.setdefault(run["layer"], {})[run["positions"]] = run["seconds a token"]
    positions = list(next(iter(found.values())))
    rows = [[f"`{layer}`", *(f"{1e6 * times[n]:.0f}" for n in positions)] for layer, times in found.items()]
    return table(["microseconds a step", *(f"{n:,} positions" for n in positions)], rows)


def optimised() -> str:
    """Models before and after `pa.optimise`, and Inductor's."""
    record = load("optimise")
    rows = []
    for run in (r for r in record["runs"] if r["wins"]):
        macs, peak = ([f"{n:,}" for n in run[key]] for key in ("macs", "peak_bytes"))
        rows.append([run["case"], *macs, *peak, *map(milliseconds, run["seconds"].values())])
    head = ["model", "MACs", "optimised", "peak bytes", "optimised", "time", "optimised", "Inductor"]
    said, plain = record["summary"], [r for r in record["runs"] if not r["wins"]]
    names = textwrap.fill(f"({', '.join(r['case'] for r in plain)});", 120)
    most = 1 / said["least speed of a model with nothing to win"]
    ends = f"In {len(plain)} models of torchvision and timm no region is replaced\n{names}\n"
    ends += f"of the time before they take {most:.3f} at most."
    return f"{table(head, rows)}\n\n{ends}"


def first() -> str:
    """Models as they are and as torch.compile makes them, over the same after `pa.optimise`; timm's layers last."""
    record, timm = load("optimise"), load("expressible")["summary"]
    rows = []
    for run in (r for r in record["runs"] if r["wins"]):
        before, after, inductor = run["seconds"].values()
        first, second = run["macs"]
        rows.append([run["case"], f"{first / second:.1f}", f"{before / after:.1f}", f"{inductor / after:.1f}"])
    rows.append([f"{timm['timed']} attention layers of timm", "", f"{timm['timm / planned']['forward']:.2f}", ""])
    torch = record["machine"]["torch"].split("+")[0]
    head = ["model", "MACs, plain / optimised", "time, plain / optimised", f"torch.compile {torch} / optimised"]
    return table(head, rows)


def families() -> str:
    """The catalogue by family, and where its plans take fewer multiply-accumulates than the authors' orders."""
    runs = {run["entry"]: run["macs"] for run in load("atlas_entries")["runs"]}
    rows = []
    for family in catalog.families():
        ratios = {n: runs[n]["as_written"] / runs[n]["forward"] for n in catalog.names(family)}
        fewer = [r for r in ratios.values() if r > 1]
        title = family.replace("_", " ")
        shown = ", ".join(f"`{n}`" for n in sorted(ratios, key=lambda n: -ratios[n])[:3])
        most = f"{max(fewer):,.1f}" if fewer else ""
        rows.append([f"[{title}](docs/catalogue/{family}.md)", len(ratios), len(fewer), most, shown])
    return table(["family", "layers", "fewer MACs as planned", "at most, times", "among them"], rows)


TABLES = (
    first,
    families,
    figure2,
    figure2_memory,
    macs,
    recipes,
    layers,
    bat,
    planning,
    chosen,
    functions,
    huge_pages,
    kept,
    filling,
    filling_layer,
    chunked,
    causal,
    decoding,
    optimised,
)
