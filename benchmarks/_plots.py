"""Plots in the layout of the Poly-NL paper's Figure 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = (
    ("channels", "C", "seconds", 1e3, "runtime, ms"),
    ("positions", "N", "seconds", 1e3, "runtime, ms"),
    ("positions", "N", "peak bytes", 2.0**-20, "peak memory, MiB"),
)
STYLES = {"planned": "-", "paper": "--", "best": ":"}


def draw(cells: list[dict[str, Any]], out: Path, layers: list[str]) -> None:
    """Runtime against channels, runtime and peak memory against positions, as svg and png for each pass.

    A colour is a layer; solid is the planned form, dashed the paper's, dotted the best that can be installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "polyattn"
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    colours = dict(zip(layers, pyplot.get_cmap("tab10").colors, strict=False))
    for which in ("forward", "training"):
        # Eight inches, so that letters stay readable where a page shows it 690 pixels wide.
        figure, axes = pyplot.subplots(2, 2, figsize=(8, 6.8))
        *drawn, beside = axes.flat
        for axis, (varied, name, value, factor, label) in zip(drawn, PANELS, strict=True):
            for layer in layers:
                for form, style in STYLES.items():
                    mine = [
                        c
                        for c in cells
                        if (c["axis"], c["pass"], c["layer"], c["form"]) == (varied, which, layer, form)
                    ]
                    xs = sorted((c[name], factor * c[value]) for c in mine if value in c and "left out" not in c)
                    if xs:
                        axis.plot(*zip(*xs, strict=True), style, color=colours[layer], marker="o", markersize=3)
            fixed = {"channels": "N", "positions": "C"}[varied]
            at = sorted({c[fixed] for c in cells if c["axis"] == varied})
            axis.set(
                xscale="log", yscale="log", xlabel=f"{varied} {name} ({fixed} = {at[0] if at else '?'})", ylabel=label
            )
            axis.grid(alpha=0.3)
        handles = [Line2D([], [], color=colours[layer], label=layer) for layer in layers]
        handles += [Line2D([], [], color="black", linestyle=s, label=f) for f, s in STYLES.items()]
        beside.set_axis_off()
        beside.legend(handles=handles, loc="center", ncols=2, frameon=False)
        figure.suptitle(f"one layer, {which}: paper's form, planned form, best that can be installed")
        figure.tight_layout()
        for suffix in (".svg", ".png"):
            figure.savefig(
                out.with_name(f"{out.stem}_{which}{suffix}"),
                dpi=110,
                metadata={"Date": None} if suffix == ".svg" else None,
            )
        pyplot.close(figure)
