"""`Verification`: the comparisons of `verify` and their results, printed as one paragraph."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

SHOWN = 160
FEW = 4


@dataclass(frozen=True)
class Difference:
    """The first entry in which a graph and the definition differ.

    Attributes:
        tensor: the output's name.
        entry: its place, the batch first.
        graph, definition: both values, as text.
        count: number of entries that differ.
        source: "graph" or "candidate", which gave the first value.
    """

    tensor: str
    entry: tuple[int, ...]
    graph: str
    definition: str
    count: int
    source: str = "graph"

    def __str__(self) -> str:
        return (
            f"{self.tensor}[{','.join(map(str, self.entry))}] is {_short(self.graph)} by the {self.source}, "
            f"but {_short(self.definition)} by the definition; {self.count} differ in all"
        )


@dataclass(frozen=True)
class Check:
    """One comparison of a tensor computed by a graph.

    Attributes:
        tensor: the compared tensor: the output, or a gradient.
        manner: how it was computed, such as "in float32"; "" if there is one way only.
        entries: how many entries were compared.
        detail: further knowledge, such as the largest error and its bound.
        undecided: entries besides these that the bounds neither confirm nor refute.
        failure: why the comparison could not be made at all, "" if it was.
        difference: None if all entries agree.
        error, bound: at the numeric level, the largest error in terms of its bound, and both where it was.
    """

    tensor: str
    manner: str = ""
    entries: int = 0
    detail: str = ""
    undecided: int = 0
    failure: str = ""
    difference: Difference | None = None
    error: float | None = None
    bound: float | None = None

    def __bool__(self) -> bool:
        return not self.failure and self.difference is None and not self.undecided

    @property
    def refuted(self) -> bool:
        """Whether the graph is wrong here, or cannot run."""
        return bool(self.failure) or self.difference is not None

    def __str__(self) -> str:
        subject = f"{self.tensor} {self.manner}".rstrip()
        if self.failure:
            return f"{subject}: {self.failure}"
        counted = f"{self.entries} entr{'y' if self.entries == 1 else 'ies'} of {subject}"
        detail = f", {self.detail}" if self.detail else ""
        unknown = f"; {self.undecided} more have no bound, and may be right or wrong" if self.undecided else ""
        return f"{counted}{detail}{unknown}" + (
            f"; the first that differs: {self.difference}" if self.difference else ""
        )


@dataclass(frozen=True)
class Verification:
    """Whether a lowered graph computes its specification; true exactly if every entry of every check agrees.

    A verification without a difference may still be false: entries of unbounded rounding error are undecided.

    Attributes:
        level: "symbolic", "modular" or "numeric".
        specification: the text.
        sizes: the number of every size, as sorted pairs.
        plan: the lowered plan, in words.
        method: the reference and the way of comparing, in words.
        checks: one for each tensor and precision.
        bound: at the modular level, largest chance of a wrong graph to pass.
        seed: seed of the random tensors.
        candidate: the name of the code that was judged, where it was not a lowered graph.
    """

    level: str
    specification: str
    sizes: tuple[tuple[str, int], ...]
    plan: str
    method: str
    checks: tuple[Check, ...]
    bound: Fraction | None = None
    seed: int | None = None
    candidate: str = ""

    def __bool__(self) -> bool:
        return all(self.checks)

    @property
    def entries(self) -> int:
        """Return the number of compared entries."""
        return sum(check.entries for check in self.checks)

    @property
    def difference(self) -> Difference | None:
        """Return the first difference, or None."""
        return next((c.difference for c in self.checks if c.difference), None)

    def __str__(self) -> str:
        sizes = " ".join(f"{n}={v}" for n, v in self.sizes)
        definition = self.specification.splitlines()[-1]
        seed = "" if self.seed is None else f" The seed is {self.seed}."
        refuted = any(check.refuted for check in self.checks)
        answer, found = ("yes", "Equal") if self else ("no", "Not equal") if refuted else ("undecided", "Not decided")
        subject = f"the graph of {_short(definition)} at {sizes} ({self.plan})"
        if self.candidate:
            subject = f"{self.candidate} as {_short(definition)} at {sizes}"
        return f"{answer}, {self.level}: {subject}, {self.method}. {found}: {self._found()}.{seed}"

    def _found(self) -> str:
        """Return the comparisons, one by one if they are few; in case of differences, only those."""
        if not self:
            return "; ".join(str(check) for check in self.checks if not check)
        if len(self.checks) <= FEW:
            return "; ".join(map(str, self.checks))
        tensors: dict[str, list[str]] = {}
        for check in self.checks:
            tensors.setdefault(check.manner, []).append(check.tensor)
        subjects = "; ".join(f"{', '.join(names)} {manner}".rstrip() for manner, names in tensors.items())
        errors = [c for c in self.checks if c.error is not None and c.bound]
        # The check nearest to its bound stands for all the others.
        worst = max(errors, key=lambda c: (c.error or 0) / (c.bound or 1), default=None)
        closest = "" if worst is None else f"; closest to its bound is {worst}"
        return f"all {self.entries} entries of {subjects}{closest}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]} ... ({len(text):,} characters)"
