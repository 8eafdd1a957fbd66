"""`Study`: the costs of layers over sweeps of their sizes, as a table, as curves and as formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from polyattn import display
from polyattn.algebra import Spec
from polyattn.lowering.planner import AsRun
from polyattn.optional import need
from polyattn.planning import BATCH, CPU, Device, Plan
from polyattn.planning.graph import ITEMSIZE
from polyattn.planning.memory import Memory
from polyattn.study.counts import Counts, counts, value
from polyattn.study.formulas import Formulas, formulas
from polyattn.study.printing import cells, latex, markdown, text, title

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from polyattn.study.modules import Baseline, Counted

MODULE = "module"
"""The order of a module: that of its own code."""
QUANTITIES = {
    "macs": "multiply-accumulates",
    "macs_as_run": "multiply-accumulates as run",
    "traffic_bytes": "bytes moved, float32",
    "peak_bytes": "peak bytes allocated, float32",
    "step_peak_bytes": "peak bytes of the steps' values, float32",
    "kept_bytes": "bytes kept for the backward pass, float32",
    "parameters": "parameters",
    "flops_per_byte": "FLOPs per byte moved",
    "predicted_seconds": "predicted time, s",
    "measured_seconds": "measured time, s",
}
"""The quantities of a study, with their labels on axes."""


@dataclass(frozen=True)
class Case:
    """One layer in one order at one point of the sweep.

    Attributes:
        layer: the name of the specification.
        order: "as written", "opt_einsum" or "planned"; "module" for a module.
        point: the requested sizes, as pairs in the order given.
        plan: the plan there.
        objective: "forward", or "training" for a forward and a backward pass.
        predicted_seconds: by the roofline of the study's device.
        measured_seconds: the median of interleaved runs; None without measurement.
        device: the study's device.
    """

    layer: str
    order: str
    point: tuple[tuple[str, int], ...]
    plan: Plan
    objective: str
    predicted_seconds: float
    measured_seconds: float | None = None
    device: Device | None = None

    @property
    def strategy(self) -> str:
        return self.plan.strategy

    @cached_property
    def counts(self) -> Counts:
        return counts(self.plan, self.objective)

    @property
    def sizes(self) -> dict[str, int]:
        """Return all sizes of the layer with the requested ones; B is the batch."""
        return {"B": self.plan.batch, **dict(self.point), **self.plan.sizes}

    @cached_property
    def _known(self) -> dict[str, int]:
        return {BATCH: self.plan.batch, **self.plan.sizes}

    @property
    def macs(self) -> int:
        return value(self.counts.macs, self._known)

    @property
    def macs_as_run(self) -> int:
        """Return the multiply-accumulates of the lowered graphs, with autograd's backward pass where none is planned.

        Zeros that lowering fills in to spare a copy count; without torch, the steps' `macs`.
        """
        found = self._allocated
        return self.macs if found is None else found.macs + found.backward_macs

    @property
    def traffic_bytes(self) -> int:
        return ITEMSIZE * value(self.counts.entries, self._known)

    @cached_property
    def _allocated(self) -> Memory | None:
        training = self.objective == "training"
        return AsRun("auto", CPU if self.device is None else self.device, training=training).counted(self.plan)

    @property
    def peak_bytes(self) -> int:
        """Return the most bytes allocated at once by the lowered graphs; without torch, `step_peak_bytes`."""
        return self.step_peak_bytes if self._allocated is None else self._allocated.peak

    @property
    def step_peak_bytes(self) -> int:
        """Return the peak bytes of the steps' values, without copies and temporaries, as in the formulas."""
        return ITEMSIZE * self.counts.peak(self._known)

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of the steps' values kept for the backward pass, as in the formulas."""
        return ITEMSIZE * value(self.counts.kept, self._known)

    @property
    def parameters(self) -> int:
        return value(self.counts.parameters, self._known)

    @property
    def flops_per_byte(self) -> float:
        """Return the arithmetic intensity; 0 for a layer without memory traffic."""
        return 2 * self.macs / self.traffic_bytes if self.traffic_bytes else 0.0


@dataclass(frozen=True)
class ModuleCase(Case):
    """A module at one point of the sweep, counted by the operations that it runs.

    Attributes:
        counted: its costs.
    """

    counted: Counted | None = None

    @property
    def _costs(self) -> Counted:
        assert self.counted is not None
        return self.counted

    @property
    def strategy(self) -> str:
        return MODULE

    @property
    def sizes(self) -> dict[str, int]:
        return {"B": 1, **dict(self.point)}

    @property
    def macs(self) -> int:
        return self._costs.price.macs

    @property
    def macs_as_run(self) -> int:
        return self._costs.price.macs

    @property
    def traffic_bytes(self) -> int:
        return self._costs.price.traffic_bytes

    @property
    def peak_bytes(self) -> int:
        return self._costs.price.peak_bytes

    @property
    def step_peak_bytes(self) -> int:
        return self._costs.price.peak_bytes

    @property
    def kept_bytes(self) -> int:
        return self._costs.price.kept_bytes

    @property
    def parameters(self) -> int:
        return self._costs.parameters


@dataclass(frozen=True, repr=False)
class Study:
    """The costs of layers over sweeps of their sizes.

    Attributes:
        objective: "forward" or "training".
        layers: the specifications and modules by name, as pairs.
        varied: the varying sizes, in the order given.
        cases: every layer in every order at every point.
        device: the device whose roofline predicts the times.
    """

    objective: str
    layers: tuple[tuple[str, Spec | Baseline], ...]
    varied: tuple[str, ...]
    cases: tuple[Case, ...]
    device: Device

    @property
    def measured(self) -> bool:
        """Test if times were measured."""
        return any(c.measured_seconds is not None for c in self.cases)

    @property
    def orders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.order for c in self.cases))

    @property
    def changing(self) -> tuple[str, ...]:
        """Return the sizes with several numbers: the varying ones, and those made of them."""
        points = [dict(c.point) for c in self.cases]
        return tuple(n for n in points[0] if len({p[n] for p in points}) > 1) if points else ()

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary for each case: layer, order, strategy, the point's sizes, then the costs."""
        names = [q for q in QUANTITIES if q != "measured_seconds" or self.measured]
        return [
            {"layer": c.layer, "order": c.order, "strategy": c.strategy, **dict(c.point)}
            | {name: getattr(c, name) for name in names}
            for c in self.cases
        ]

    def table(self) -> pandas.DataFrame:
        """Return the rows as a pandas table.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return need("pandas", "study").DataFrame(self.rows())

    @cached_property
    def formulas(self) -> dict[str, tuple[Formulas, ...]]:
        """Return, for each layer, the formulas of its plans: one for each order and each plan chosen somewhere.

        Modules have none.
        """
        found: dict[str, tuple[Formulas, ...]] = {}
        for name, _ in self.layers:
            # Plans with equal counts have equal formulas, whatever their graphs.
            alike: dict[tuple[str, Counts], list[Case]] = {}
            for case in self.cases:
                if case.layer == name and case.order != MODULE:
                    alike.setdefault((case.order, case.counts), []).append(case)
            found[name] = tuple(
                formulas(name, order, cases[0].plan, self.objective, tuple(c.point for c in cases))
                for (order, _), cases in alike.items()
            )
        return found

    def plot(self, quantity: str = "macs", *, orders: Sequence[str] | None = None) -> Figure:
        """Draw the curves of `polyattn.study.pictures.cost_curves`."""
        from polyattn.study.pictures import cost_curves

        return cost_curves(self, quantity, orders=orders)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        return markdown(self)

    def latex(self) -> str:
        """Return the table as a LaTeX tabular, with the rules of booktabs."""
        return latex(self)

    def __repr__(self) -> str:
        return f"<Study of {', '.join(name for name, _ in self.layers)}: {len(self.cases)} cases>"

    def _repr_html_(self) -> str:
        head, *rows = cells(self)
        return display.note(title(self)) + display.table(head, rows, right=range(2, len(head)))

    def _repr_svg_(self) -> str | None:
        """Return the curves of multiply-accumulates; None without matplotlib or varying sizes."""
        return display.svg(self)

    def __str__(self) -> str:
        return text(self)
