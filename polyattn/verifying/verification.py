"""`Verification`: what `verify` compared and found, which prints as one paragraph."""

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
        count: in how many entries they differ.
    """

    tensor: str
    entry: tuple[int, ...]
    graph: str
    definition: str
    count: int

    def __str__(self) -> str:
        return (
            f"{self.tensor}[{','.join(map(str, self.entry))}] is {_short(self.graph)} by the graph, "
            f"but {_short(self.definition)} by the definition; {self.count} differ in all"
        )


@dataclass(frozen=True)
class Check:
    """One comparison of a tensor that a graph computed.

    Attributes:
        tensor: what was compared: the output, or a gradient.
        manner: how it was computed, such as "in float32"; "" if there is one way only.
        entries: how many entries were compared.
        detail: what is known besides, such as the largest error and its bound.
        failure: why the comparison could not be made at all, "" if it was.
        difference: None if all entries agree.
        error, bound: at the numeric level, the largest error in terms of its bound, and both where it was.
    """

    tensor: str
    manner: str = ""
    entries: int = 0
    detail: str = ""
    failure: str = ""
    difference: Difference | None = None
    error: float | None = None
    bound: float | None = None

    def __bool__(self) -> bool:
        return not self.failure and self.difference is None

    def __str__(self) -> str:
        subject = f"{self.tensor} {self.manner}".rstrip()
        if self.failure:
            return f"{subject}: {self.failure}"
        counted = f"{self.entries} entr{'y' if self.entries == 1 else 'ies'} of {subject}"
        detail = f", {self.detail}" if self.detail else ""
        return f"{counted}{detail}" + (f"; the first that differs: {self.difference}" if self.difference else "")


@dataclass(frozen=True)
class Verification:
    """Whether a lowered graph computes its specification; true exactly if every check found it so.

    Attributes:
        level: "symbolic", "modular" or "numeric".
        specification: the text.
        sizes: the number of every size, as sorted pairs.
        plan: which plan was lowered, in words.
        method: what the graph was compared with, in words.
        checks: one for each tensor and precision.
        bound: at the modular level, at most this chance that a wrong graph passes.
        seed: of the random tensors.
    """

    level: str
    specification: str
    sizes: tuple[tuple[str, int], ...]
    plan: str
    method: str
    checks: tuple[Check, ...]
    bound: Fraction | None = None
    seed: int | None = None

    def __bool__(self) -> bool:
        return all(self.checks)

    @property
    def entries(self) -> int:
        """How many entries were compared."""
        return sum(check.entries for check in self.checks)

    @property
    def difference(self) -> Difference | None:
        """The first difference that was found."""
        return next((c.difference for c in self.checks if c.difference), None)

    def __str__(self) -> str:
        sizes = " ".join(f"{n}={v}" for n, v in self.sizes)
        definition = self.specification.splitlines()[-1]
        seed = "" if self.seed is None else f" The seed is {self.seed}."
        return (
            f"{'yes' if self else 'no'}, {self.level}: the graph of {_short(definition)} at {sizes} ({self.plan}), "
            f"{self.method}. {'Equal' if self else 'Not equal'}: {self._found()}.{seed}"
        )

    def _found(self) -> str:
        """What was compared, check by check if they are few; if anything differs, only that."""
        if not self:
            return "; ".join(str(check) for check in self.checks if not check)
        if len(self.checks) <= FEW:
            return "; ".join(map(str, self.checks))
        tensors: dict[str, list[str]] = {}
        for check in self.checks:
            tensors.setdefault(check.manner, []).append(check.tensor)
        subjects = "; ".join(f"{', '.join(names)} {manner}".rstrip() for manner, names in tensors.items())
        errors = [c for c in self.checks if c.error is not None and c.bound]
        worst = max(errors, key=lambda c: (c.error or 0) / (c.bound or 1), default=None)
        closest = "" if worst is None else f"; closest to its bound is {worst}"
        return f"all {self.entries} entries of {subjects}{closest}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 20]} ... ({len(text):,} characters)"
