"""The demo's tables as CSV and its figures as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00")
"""Blue and vermilion of the Okabe-Ito palette, distinct in grey as well."""


def draw(results: dict[str, Any], out: Path) -> None:
    """Write every table and figure of the demo to a folder, without a screen."""
    # Agg needs no display.
    plt.switch_backend("Agg")
    plans = pd.DataFrame(results["plans"]).drop(columns=["plan", "sizes"])
    photographs = pd.DataFrame(results["photographs"]).drop(columns=["output"])
    digits = pd.DataFrame([{"network": r["network"], **run} for r in results["digits"] for run in r["runs"]])
    pd.DataFrame(results["facts"]).to_csv(out / "checks.csv", index=False)
    plans.to_csv(out / "plans.csv", index=False)
    photographs.to_csv(out / "resnet50.csv", index=False)
    digits.to_csv(out / "digits.csv", index=False)
    (out / "plans.txt").write_text("\n\n".join(p["plan"] for p in results["plans"]) + "\n", encoding="utf-8")
    _save(_plans_figure(plans), out / "plans")
    _save(_digits_figure(digits), out / "digits")


def _plans_figure(plans: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    width = 0.38
    for k, (column, label) in enumerate((("macs_as_written", "as written"), ("macs_planned", "planned"))):
        positions = [p + (k - 0.5) * width for p in range(len(plans))]
        bars = axes.bar(positions, plans[column] / 1e6, width, label=label, color=COLOURS[k], hatch="" if k else "//")
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(plans)), list(plans["layer"]))
    axes.set_ylabel("multiply-accumulates, millions")
    # The layers differ by orders of magnitude.
    axes.set_yscale("log")
    axes.set_title("One layer on Res3's feature map: 28 x 28 positions, 512 channels", fontsize=10)
    axes.legend(frameon=False)
    return figure


def _digits_figure(digits: pd.DataFrame) -> Figure:
    names = list(dict.fromkeys(digits["network"]))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharey=True)
    for k, name in enumerate(names):
        rows = digits[digits["network"] == name]
        for axis, values in zip(axes, (100 * rows["accuracy"], rows["epoch_seconds"]), strict=True):
            axis.plot(values, [k] * len(values), "o", color=COLOURS[0], mfc="none")
            axis.plot([values.mean()], [k], "|", color=COLOURS[1], markersize=16, mew=2)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("test accuracy, %")
    axes[1].set_xlabel("seconds per epoch")
    figure.suptitle("Handwritten digits: each seed (o) and their mean (|)", fontsize=10)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_suffix(".png"), dpi=150)
    figure.savefig(path.with_suffix(".svg"))
    plt.close(figure)
