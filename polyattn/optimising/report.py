"""`Optimised`: the replaced regions of a model, as a table, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from polyattn import display
from polyattn.optimising.pricing import Price
from polyattn.proving import Verdict
from polyattn.reading import Reading


@dataclass(frozen=True)
class Replacement:
    """A region on its plan.

    Attributes:
        name: the qualified name of the module, and of the region's result in its forward pass.
        reading: the equation of the code as it was.
        before, after: prices of the code as it was and of the planned code, for the objective.
        verdict: the proof that both have one equation, with its certificate.
    """

    name: str
    reading: Reading
    before: Price
    after: Price
    verdict: Verdict

    @property
    def certificate(self) -> Any:
        """Return the certificate, which `proofs/check.py` checks."""
        return self.verdict.certificate


@dataclass
class Optimised:
    """The regions of a model that run on a plan, and those that were left.

    Attributes:
        replacements: the regions replaced.
        left: regions that were looked at and left as they are: the name and the reason.
        objective: "forward" or "training".
    """

    replacements: tuple[Replacement, ...]
    left: tuple[tuple[str, str], ...]
    objective: str
    _restore: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Restore the model as it was before; a second call does nothing."""
        while self._restore:
            self._restore.pop()()

    def __iter__(self) -> Iterator[Replacement]:
        return iter(self.replacements)

    def __len__(self) -> int:
        return len(self.replacements)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's rows, the header first."""
        found = [("region", "MACs", "planned", "peak bytes", "planned", "seconds", "planned", "certificate")]
        for r in self.replacements:
            a, b = r.before, r.after
            found.append(
                (
                    *(r.name, f"{a.macs:,}", f"{b.macs:,}", f"{a.peak_bytes:,}", f"{b.peak_bytes:,}"),
                    *(f"{a.seconds:.3g}", f"{b.seconds:.3g}", _short(r.verdict)),
                )
            )
        return found

    def __str__(self) -> str:
        lines: list[str] = []
        if self.replacements:
            rows = self.rows()
            widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
            for k, row in enumerate(rows):
                cells = [
                    c.ljust(w) if n in (0, 7) else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
                ]
                lines.append("  ".join(cells).rstrip())
                if not k:
                    lines.append("  ".join("-" * w for w in widths))
            lines.append(
                f"predicted for objective={self.objective!r} by the calibrated roofline; undo() restores the model"
            )
        else:
            lines.append("no region was replaced")
        for reason, names in self._reasons().items():
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            lines.append(f"left: {shown}: {reason}")
        return "\n".join(lines)

    def _reasons(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, reason in self.left:
            found.setdefault(reason, []).append(name)
        return dict(sorted(found.items(), key=lambda pair: -len(pair[1])))

    def _repr_html_(self) -> str:
        rows = self.rows()
        return display.table(rows[0], rows[1:], right=(1, 2, 3, 4, 5, 6))


def _short(verdict: Verdict) -> str:
    return "equal at every size" if not verdict.where else "equal, " + "; ".join(map(str, verdict.where))
