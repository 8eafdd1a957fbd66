"""The subject of `verify`: a specification, and the graphs said to compute it and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from torch import fx

from polyattn.algebra import Spec
from polyattn.errors import BudgetError, NotPolynomialError, ProofError, SizeError
from polyattn.language import value_of
from polyattn.lowering import lower, lower_backward
from polyattn.lowering import whole_plan as plan
from polyattn.lowering.graphs import lower_with_kept
from polyattn.planning import Plan
from polyattn.proving.evaluation import Arithmetic
from polyattn.verifying.exact import run_exactly
from polyattn.verifying.verification import Check, Difference

BATCH = 2
"""Graphs hold for any batch; two samples reveal a graph that mixes them up."""

MAX_ENTRIES = 2**22
"""The largest number of entries of all tensors, held as numbers of Python."""

Results = dict[str, np.ndarray] | str
"""The tensors that graphs computed, by name, or why they cannot run."""


@dataclass(frozen=True)
class Passes:
    """A forward graph, alone or with the backward graph that runs on the values it keeps.

    Attributes:
        forward: returns the output or, where there is a `backward`, the output and the values kept for it.
        output, gradients: which graph the output and the gradients come from, in words; "" where no graph was given.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule | None = None
    output: str = ""
    gradients: str = ""

    def manner(self, gradient: bool, rest: str = "") -> str:
        """Return how an output or a gradient was computed, in words."""
        return f"{self.gradients if gradient else self.output} {rest}".strip()


GIVEN_FORWARD, GIVEN_BACKWARD = "by the given graph", "by the given backward graph"
PLANNED_FORWARD, PLANNED_BACKWARD = "by the plan's forward pass", "by the plan's backward pass"


@dataclass(frozen=True)
class Subject:
    """The specification, the plan, and the graphs that are said to compute it.

    Attributes:
        passes: the graphs; a given forward graph comes first, and the plan's own passes follow for its gradients.
        derivative: whether the gradients are asked for.
    """

    spec: Spec
    plan: Plan
    passes: tuple[Passes, ...]
    derivative: bool = False

    @classmethod
    def of(cls, subject: Any, sizes: Mapping[str, int] | None, objective: str, derivative: bool) -> Subject:
        """Build the subject; raise ProofError for another type of object, SizeError for missing sizes."""
        if sizes is not None and not isinstance(sizes, Mapping):
            raise SizeError(f"sizes is a mapping of names to numbers, not {type(sizes).__name__}")
        given: tuple[Passes, ...] = ()
        if isinstance(subject, fx.GraphModule):
            made = subject.meta.get("plan")
            if not isinstance(made, Plan):
                raise ProofError("this graph was not made by polyattn.lower, so nothing says what it has to compute")
            # More arguments than tensors: the graph is a backward pass, which also takes the gradient
            # and kept values.
            if _arguments(subject) > (known := len(made.spec.inputs) + len(made.spec.parameters)):
                if made.backward is None:
                    raise ProofError(
                        f"this graph takes {_arguments(subject)} tensors, but its plan has {known} and no backward pass"
                    )
                kept = lower_with_kept(made)
                return cls(made.spec, made, (Passes(kept, subject, PLANNED_FORWARD, GIVEN_BACKWARD),), True)
            given = (Passes(subject, output=GIVEN_FORWARD),)
        else:
            made = subject if isinstance(subject, Plan) else _planned(subject, sizes, objective)
        # The maps of a layer lie in memory with the channels first, which changes its graph.
        layer = hasattr(subject, "running_plan")
        if not derivative:
            return cls(made.spec, made, given or (Passes(lower(made, channels_first=layer)),))
        if made.backward is None:
            made = plan(made.spec, made.sizes, "training", batch=made.batch)
        if made.backward is None:
            raise ProofError("the planner makes no backward pass of this specification, so no gradient can be checked")
        words = (PLANNED_FORWARD, PLANNED_BACKWARD) if given else ("", "")
        own = Passes(lower_with_kept(made, channels_first=layer), lower_backward(made, channels_first=layer), *words)
        return cls(made.spec, made, (*given, own), True)

    @property
    def differentiated(self) -> tuple[fx.GraphModule, str]:
        """The forward graph that autograd goes through, and how its gradients are computed, in words."""
        first = self.passes[0]
        if first.backward is None:
            return first.forward, f"by autograd through {first.output.removeprefix('by ') or 'the graph'}"
        through = f" through {first.output.removeprefix('by ')}" if first.output else ""
        return lower(self.plan), f"by autograd{through}"

    @property
    def sizes(self) -> dict[str, int]:
        return self.plan.sizes

    @property
    def tensors(self) -> tuple[str, ...]:
        """Return the graph's arguments, in their order."""
        return (*self.spec.inputs, *self.spec.parameters)

    @cached_property
    def gradients(self) -> dict[str, str]:
        """Return the name of each argument's gradient: d and its name, with underscores if the output has that name."""
        names = {t: f"d{t}" for t in self.tensors}
        for tensor, name in names.items():
            # Names must differ from the output's and from each other.
            while name == self.spec.output or (name != f"d{tensor}" and name in names.values()):
                name += "_"
            names[tensor] = name
        return names

    @property
    def words(self) -> str:
        """Which plan it is."""
        first, *rest = self.passes
        passes = "forward and backward pass, " if first.backward or rest else ""
        given = "".join(f"{w.removeprefix('by ')}, " for w in (first.output, first.gradients) if "given" in w)
        passes = f"{given}beside the plan's {passes}" if rest else f"{given}{passes}"
        return f"{passes}objective {self.plan.objective}, {self.plan.strategy}"

    def shape(self, tensor: str, batch: bool = False) -> tuple[int, ...]:
        """Return one length per slot; on demand, the batch before those of an input or the output."""
        lead = (BATCH,) if batch and tensor not in self.spec.parameters else ()
        return lead + tuple(value_of(atoms, self.sizes) for atoms in self.spec.shape(tensor))

    def atomic(self, tensor: str, array: np.ndarray) -> np.ndarray:
        """Return an array of a tensor, without the batch, with one axis per atomic slot."""
        return array.reshape([value_of([a], self.sizes) for atoms in self.spec.shape(tensor) for a in atoms])

    def fill(self, make: Callable[[str, tuple[int, ...]], np.ndarray]) -> dict[str, np.ndarray]:
        """Return an array for each argument and, for the gradients, one for the output's, by name and shape.

        Raises:
            BudgetError: they have more than 2^22 entries.
        """
        entries = sum(prod(self.shape(t, batch=True)) for t in (*self.tensors, self.spec.output))
        if entries > MAX_ENTRIES:
            raise BudgetError(f"the tensors have {entries:,} entries; the limit of verify is {MAX_ENTRIES:,}")
        arrays = {t: make(t, self.shape(t, batch=True)) for t in self.tensors}
        if self.derivative:
            arrays[self.plan.seed] = make(self.plan.seed, self.shape(self.spec.output, batch=True))
        return arrays

    def samples(self, tensors: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yield, for each sample of the batch, all tensors with one axis per atomic slot."""
        for k in range(BATCH):
            yield {
                name: self.atomic(
                    self.spec.output if name == self.plan.seed else name,
                    array if name in self.spec.parameters else np.asarray(array[k]),
                )
                for name, array in tensors.items()
            }

    def require_polynomial(self, level: str) -> None:
        """Raise NotPolynomialError if the specification applies functions."""
        if not self.spec.is_polynomial:
            raise NotPolynomialError(
                f"the specification applies functions, which have no exact values: "
                f'level="{level}" is for polynomials; level="numeric" checks it'
            )

    def require_budget(self, budget: int) -> None:
        """Raise BudgetError if the graphs take more multiply-accumulates."""
        all_macs = self.plan.training_macs if self.derivative else self.plan.macs
        # The plan's own batch may be another one; rounded up per sample.
        macs = BATCH * -(-all_macs // self.plan.batch)
        if macs > budget:
            raise BudgetError(
                f"the graph takes {macs:,} multiply-accumulates, in exact arithmetic one by one; the budget is "
                f"{budget:,} (budget=... raises it)"
            )

    def run(self, tensors: Mapping[str, np.ndarray], arithmetic: Arithmetic) -> list[tuple[Passes, Results]]:
        """Return for all passes their tensors in exact arithmetic, zero gradients as such, or why they cannot run."""
        return [(passes, self._results(passes, tensors, arithmetic)) for passes in self.passes]

    def _results(self, passes: Passes, tensors: Mapping[str, np.ndarray], arithmetic: Arithmetic) -> Results:
        with running() as failure:
            found = self._run(passes, tensors, arithmetic)
            if missing := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
                return f"the graph returns a {type(found[missing[0]]).__name__} for {missing[0]}, not a tensor"
            return found
        return failure[0]

    def _run(self, passes: Passes, tensors: Mapping[str, np.ndarray], arithmetic: Arithmetic) -> dict[str, np.ndarray]:
        arguments = [tensors[t] for t in self.tensors]
        output = run_exactly(passes.forward, arguments, arithmetic)
        if passes.backward is None:
            return {self.spec.output: output}
        output, *kept = output
        gradients = run_exactly(passes.backward, [tensors[self.plan.seed], *arguments, *kept], arithmetic)
        return {self.spec.output: output} | {
            # A gradient that is zero everywhere is None in the graph.
            self.gradients[t]: np.zeros(self.shape(t, batch=True), dtype=object) if g is None else g
            for t, g in zip(self.tensors, gradients, strict=True)
        }

    def compare(
        self,
        found: list[tuple[Passes, Results]],
        want: Mapping[str, np.ndarray],
        differ: Callable[[Any, Any], bool],
        detail: Callable[[np.ndarray], str] = lambda array: "",
    ) -> tuple[Check, ...]:
        """Check every entry that each of the passes computes: the output and, with a backward graph, the gradients."""
        return tuple(
            _compared(name, passes.manner(name != self.spec.output), have, array, differ, detail(array))
            for passes, have in found
            for name, array in want.items()
            if name == self.spec.output or passes.backward is not None
        )


@contextmanager
def running() -> Iterator[list[str]]:
    """Run a graph, possibly one modified by a user.

    Returns:
        A list with the reason, if the graph cannot run; errors of the prover are raised.
    """
    failure: list[str] = []
    try:
        yield failure
    except (ProofError, NotPolynomialError, BudgetError):
        raise
    # A broken graph may raise anything, and each failure is an answer of `verify`.
    except Exception as error:  # SizeError among them
        lines = str(error).strip().splitlines() or [type(error).__name__]
        failure.append(f"the graph cannot run: {lines[0]}")


def _planned(subject: Any, sizes: Mapping[str, int] | None, objective: str) -> Plan:
    given = dict(sizes or {})
    if callable(running := getattr(subject, "running_plan", None)):
        made = running(given, BATCH)
        assert isinstance(made, Plan)
        return made
    if isinstance(spec := getattr(subject, "spec", None), Spec):
        given = {**getattr(subject, "sizes", {}), **given}
        objective = getattr(subject, "objective", objective)
        subject = spec
    if not isinstance(subject, Spec | str):
        raise ProofError(
            f"verify() takes a specification, a plan, a lowered graph or a module of a specification, "
            f"not {type(subject).__name__}"
        )
    return plan(subject, given, objective)


def _arguments(module: fx.GraphModule) -> int:
    return sum(node.op == "placeholder" for node in module.graph.nodes)


def _compared(
    tensor: str, manner: str, have: Results, want: np.ndarray, differ: Callable[[Any, Any], bool], detail: str
) -> Check:
    """Check every entry of one tensor."""
    if isinstance(have, str):
        return Check(tensor, manner, failure=have)
    found = np.asarray(have[tensor], dtype=object)
    if found.shape != want.shape:
        return Check(tensor, manner, failure=f"the graph's {tensor} has shape {found.shape}, not {want.shape}")
    wrong = [place for place in np.ndindex(*want.shape) if differ(found[place], want[place])]
    difference = None
    if wrong:
        difference = Difference(tensor, wrong[0], str(found[wrong[0]]), str(want[wrong[0]]), len(wrong))
    return Check(tensor, manner, entries=prod(want.shape), detail=detail, difference=difference)
