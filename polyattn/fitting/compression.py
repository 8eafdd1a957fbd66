"""The result of `compress`: every candidate with cost and errors, as a table and a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from torch import nn

from polyattn.errors import MissingPackageError
from polyattn.fitting.factorise import Factorisation
from polyattn.optional import command

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Candidate:
    """A factored layer as a replacement of a trained one.

    Attributes:
        layer: the trained layer's name in the network, "" for the model itself.
        family: the catalogue's name, or "truncation".
        factorisation: its starting point.
        module: the layer after its fine-tuning.
        trained_macs, trained_parameters: those of the trained layer, on its own cheapest plan for one sample.
        before, after: the relative error of its output on held-out samples, or of the network's if the fit was to that,
            before and after the fine-tuning.
        score_before, score_after: scores of the network with it, on request.
        chosen: whether it is in the compressed model.
        seconds, trained_seconds: measured times of it and of the trained layer on one sample, medians of interleaved
            runs.
    """

    layer: str
    family: str
    factorisation: Factorisation
    module: nn.Module
    trained_macs: int
    trained_parameters: int
    before: float
    after: float
    score_before: float | None
    score_after: float | None
    chosen: bool = False
    seconds: float | None = None
    trained_seconds: float | None = None

    def __repr__(self) -> str:
        own = f"{self.layer or 'the model'}, {self.family} of rank {self.factorisation.ranks}"
        return f"Candidate({own}: {self.macs:,} MACs, relative error {self.after:.3g})"

    @property
    def macs(self) -> int:
        """Count the multiply-accumulates on one sample."""
        return self.factorisation.macs

    @property
    def share(self) -> float:
        """Return its multiply-accumulates divided by the trained layer's."""
        return self.macs / self.trained_macs

    @property
    def speed(self) -> float | None:
        """Return its measured time divided by the trained layer's."""
        return None if self.seconds is None or not self.trained_seconds else self.seconds / self.trained_seconds

    def row(self) -> dict[str, Any]:
        ranks = self.factorisation.ranks
        return {
            "layer": self.layer,
            "family": self.family,
            "rank": ranks[0] if len(ranks) == 1 else str(ranks),
            "MACs": self.macs,
            "share": self.share,
            "parameters": self.factorisation.parameter_count,
            "core error": self.factorisation.error,
            "output error before": self.before,
            "output error": self.after,
            "seconds": self.seconds,
            "seconds before": self.trained_seconds,
            "score before": self.score_before,
            "score": self.score_after,
            "chosen": self.chosen,
        }


@dataclass(frozen=True, eq=False)
class Compression:
    """Candidates for each layer, and the model with the best of them.

    Attributes:
        candidates: all of them.
        model: a copy of the network with, for each layer, the candidate whose output is nearest to the trained one's.
        score, compressed_score: scores of the original and of the compressed network, on request.
        skipped: for each layer that is kept as it is, why.
    """

    candidates: tuple[Candidate, ...]
    model: nn.Module
    score: float | None
    compressed_score: float | None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        chosen = "; ".join(repr(c) for c in self.candidates if c.chosen)
        return f"Compression({len(self.candidates)} candidates, chosen: {chosen or 'none'})"

    def pareto(self, layer: str | None = None) -> tuple[Candidate, ...]:
        """Return the Pareto front: candidates without one both cheaper and nearer, the cheapest first."""
        own = sorted(
            (c for c in self.candidates if layer is None or c.layer == layer), key=lambda c: (c.layer, c.macs, c.after)
        )
        # In the order of cost, a candidate joins the front if it is nearer than all before it.
        kept: list[Candidate] = []
        for candidate in own:
            if not any(k.layer == candidate.layer and k.after <= candidate.after for k in kept):
                kept.append(candidate)
        return tuple(kept)

    def table(self) -> pandas.DataFrame:
        """Return a row for each candidate; `pareto` marks the Pareto front.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingPackageError(f"tables need pandas: {command('study')}") from error
        front = self.pareto()
        return pandas.DataFrame([{**c.row(), "pareto": c in front} for c in self.candidates])

    def __rich__(self) -> Table:
        title = "" if self.score is None else f"score {self.score:.4g}, compressed {self.compressed_score:.4g}"
        notes = [
            "time and share are those of the trained layer's",
            "* in the compressed model; + none is both cheaper and nearer",
        ]
        notes += [f"{name or 'the model'} is kept: it {why}" for name, why in self.skipped.items()]
        table = Table(title=title, caption="\n".join(notes))
        for heading in (
            "layer",
            "family",
            "rank",
            "MACs",
            "share",
            "parameters",
            "time",
            "core error",
            "output error",
            "score",
        ):
            words = heading in ("layer", "family")
            table.add_column(heading, justify="left" if words else "right", overflow="fold")
        front = self.pareto()
        for c in self.candidates:
            mark = ("*" if c.chosen else "") + ("+" if c in front else "")
            row = c.row()
            score = "" if c.score_after is None else f"{c.score_before:.4g} → {c.score_after:.4g}"
            table.add_row(
                c.layer, f"{c.family} {mark}", str(row["rank"]), f"{c.macs:,}", f"{c.share:.2f}",
                f"{row['parameters']:,}", "" if c.speed is None else f"{c.speed:.2f}",
                f"{row['core error']:.3g}", f"{c.before:.3g} → {c.after:.3g}", score,
            )  # fmt: skip
        return table

    def plot(self, path: str | Path | None = None) -> Any:
        """Plot output error against multiply-accumulates, a colour for each family, the Pareto front as a line.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingPackageError(f"plots need matplotlib: {command('study')}") from error
        layers = list(dict.fromkeys(c.layer for c in self.candidates))
        # `Figure` without pyplot: no window, and no global list that keeps it alive.
        figure = Figure(figsize=(7.5 * len(layers), 4.2), layout="constrained")
        for axis, layer in zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True):
            own = [c for c in self.candidates if c.layer == layer]
            for family in dict.fromkeys(c.family for c in own):
                points = sorted((c.macs, c.after) for c in own if c.family == family)
                axis.plot(*zip(*points, strict=True), "o", label=family)
            front = self.pareto(layer)
            axis.plot([c.macs for c in front], [c.after for c in front], "-", color="grey", zorder=0)
            axis.axvline(own[0].trained_macs, linestyle=":", color="black", label="trained layer")
            axis.set(xscale="log", yscale="log", xlabel="MACs of one sample", ylabel="relative error of the output")
            axis.set_title(layer)
            axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)  # beside the points
        if path is not None:
            figure.savefig(path, dpi=110)
        return figure
