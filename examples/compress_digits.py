"""Train a small network with a non-local layer on handwritten digits, then replace the layer by cheaper ones.

The layer is NL without softmax (Poly-NL, Eq. 2, divided by N). What replaces it are members of the families of factored
cores: each starts at a decomposition of the trained core, weighted by the second moments of the features, and is fitted
to the trained layer's outputs on training images; no label is used. Beside them stands plain truncation: singular value
decompositions of the two trained matrices, cut to the rank of the same budget.

By default one seed, two families and one budget; `--full` takes all four families, three budgets and five seeds, and
fits CP, of which a third of the cost buys least, also to the network's outputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import polyattn as pa

WIDTH, BATCH, RATE = 32, 32, 1e-2
NL = "x[N,C]; y[a,b] = 1/N * x[a,d]*wf[d,f]*x[e,f] * x[e,h]*wg[h,b]"
THIRD = 1 / 3
FITTED = 256  # training images that the layers are fitted on
TRUNCATION = "truncation"
THROUGH = ", through the network"  # fitted to the network's outputs, after the layer's


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1,797 images of 8 x 8 pixels, on one fixed split: training images and labels, test ones."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=450, random_state=0, stratify=labels)
    x_train, x_test = (torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 for x in split[:2])
    return x_train, torch.as_tensor(split[2]), x_test, torch.as_tensor(split[3])


def network() -> nn.Sequential:
    """A convolution, the layer, without a residual so that all passes through it, a norm, the mean, a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        pa.nn.Attention(NL, WIDTH, residual=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTH, 10),
    )


def train(seed: int, epochs: int, x: Tensor, labels: Tensor) -> nn.Sequential:
    torch.manual_seed(seed)
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * -(-len(x) // BATCH))
    shuffling = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=shuffling).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


def without(model: nn.Module) -> nn.Module:
    """The network whose layer gives zeros, to see how much it is worth."""
    made = pa.nn.Attention(NL, WIDTH, residual=False)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    layers = list(model.children())
    layers[3] = made
    return nn.Sequential(*layers).eval()


def table(runs: list[dict]) -> Table:
    """Accuracies over the seeds, for each family and budget."""
    seeds = len(runs)
    title = f"test accuracy over {seeds} seed{'s' * (seeds > 1)}, % (± standard deviation)"
    shown = Table(
        "layer", "budget", "MACs", "share", "before fine-tuning", "after", "points lost: mean, most", title=title
    )

    def text(values: list[float]) -> str:
        return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if seeds > 1 else "")

    shown.add_row("NL, trained", "", f"{runs[0]['macs']:,}", "1", "", text([100 * r["accuracy"] for r in runs]), "")
    shown.add_row("a layer of zeros", "", "0", "0", "", text([100 * r["without"] for r in runs]), "")
    for key in dict.fromkeys((c["family"], c["budget"]) for r in runs for c in r["candidates"]):
        own = [(r, c) for r in runs for c in r["candidates"] if (c["family"], c["budget"]) == key]
        lost = [100 * (r["accuracy"] - c["accuracy"]) for r, c in own]
        shown.add_row(
            key[0], f"{key[1]:.2f}", f"{max(c['macs'] for _, c in own):,}", f"{max(c['share'] for _, c in own):.2f}",
            text([100 * c["accuracy before"] for _, c in own]), text([100 * c["accuracy"] for _, c in own]),
            f"{mean(lost):.2f}, {max(lost):.2f}",
        )  # fmt: skip
    return shown


def main(
    full: bool = typer.Option(False, help="four families, three budgets, five seeds"),
    seeds: int = typer.Option(0, help="how many; 0 for 1, or 5 with --full"),
    out: Path | None = typer.Option(None, help="write every run to this JSON file; runs that it has are kept"),
    figure: Path | None = typer.Option(None, help="draw errors and lost points by cost here"),
) -> None:
    """Train, compress, and print what is lost."""
    console = Console()
    all_families = ("cp_nl", f"cp_nl{THROUGH}", "tucker_nl", "tt_nl", "block_term_nl")
    families = all_families if full else ("cp_nl", "tt_nl")
    budgets, epochs = ((1 / 6, THIRD, 1 / 2), 20) if full else ((THIRD,), 4)
    x, labels, x_test, labels_test = digits()
    try:
        runs = json.loads(out.read_text())["runs"] if out is not None and out.exists() else []
        _ = [(r["seed"], c["family"], c["budget"]) for r in runs for c in r["candidates"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise typer.BadParameter(f"{out} does not hold runs of this script ({error!r}): choose another file") from None

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return (model(x_test).argmax(1) == labels_test).float().mean().item()

    for seed in range(seeds or (5 if full else 1)):
        run: dict[str, Any] | None = next((r for r in runs if r["seed"] == seed), None)
        done = {(c["family"], c["budget"]) for c in run["candidates"]} if run else set()
        todo = [(f, b) for b in budgets for f in (*families, TRUNCATION) if (f, b) not in done]
        if not todo:
            continue
        model = train(seed, epochs, x, labels)
        if run is None:
            reached = {"accuracy": accuracy(model), "without": accuracy(without(model))}
            run = {"seed": seed, **reached, "candidates": []}
            runs.append(run)
        for family, budget in todo:
            own = () if family == TRUNCATION else (family.removesuffix(THROUGH),)
            found = pa.fitting.compress(
                model, x[:FITTED], families=own, budgets=(budget,), evaluate=accuracy, seed=seed, truncation=not own,
                fit_to="network" if family.endswith(THROUGH) else "layer",
                starts=2 if full else 1, iterations=30 if full else 20, steps=100 if full else 30,
            )  # fmt: skip
            (c,) = found.candidates
            run["macs"] = c.trained_macs
            run["candidates"].append(
                {
                    "family": family, "budget": budget, "ranks": list(c.factorisation.ranks), "macs": c.macs,
                    "share": c.share, "core error": c.factorisation.error, "output error before": c.before,
                    "output error": c.after, "accuracy before": c.score_before, "accuracy": c.score_after,
                }
            )  # fmt: skip
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                settings = {"width": WIDTH, "epochs": epochs, "batch": BATCH, "rate": RATE, "fitted on": FITTED}
                out.write_text(json.dumps({**settings, "runs": runs}, indent=1) + "\n")
    console.print(table(runs))
    if figure is not None:
        _draw(runs, figure)


def _draw(runs: list[dict], path: Path) -> None:
    """Points lost and the layer's error against the share of multiply-accumulates, each seed a point."""
    from polyattn.study.pictures.style import COLOURS, MARKERS, figure

    drawing = figure(10, 4.4)
    left, right = drawing.subplots(1, 2)
    families = dict.fromkeys(c["family"] for r in runs for c in r["candidates"])
    for family, colour, marker in zip(families, COLOURS, MARKERS, strict=False):
        own = [(r, c) for r in runs for c in r["candidates"] if c["family"] == family]
        shares = [c["share"] for _, c in own]
        look = {"color": colour, "marker": marker, "linestyle": "", "alpha": 0.6, "label": family}
        if not family.endswith(THROUGH):
            left.plot(shares, [c["output error"] for _, c in own], **look)
        right.plot(shares, [100 * (r["accuracy"] - c["accuracy"]) for r, c in own], **look)
    layers = [c for r in runs for c in r["candidates"] if not c["family"].endswith(THROUGH)]
    made = sorted((c["share"], c["output error"]) for c in layers)
    front = [p for k, p in enumerate(made) if all(p[1] < q[1] for q in made[:k])]
    left.plot(*zip(*front, strict=True), "-", color="grey", zorder=0)  # the Pareto front
    left.set(xlabel="share of NL's planned MACs", ylabel="relative error of the layer's output", yscale="log")
    right.set(xlabel="share of NL's planned MACs", ylabel="points of test accuracy lost")
    right.axhline(0.5, linestyle=":", color="black")
    left.set_title("the Pareto front as a line", fontsize="medium")
    right.set_title("half a point as a dotted line", fontsize="medium")
    right.set_yscale("symlog", linthresh=1)
    points, names = right.get_legend_handles_labels()
    drawing.legend(points, names, loc="outside lower center", ncols=len(names), frameon=False)
    drawing.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
