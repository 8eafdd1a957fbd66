"""The errors that polyattn raises, all derived from `PolyattnError`.

Every message names the place and the remedy; none is raised after work has been thrown away.
"""


class PolyattnError(Exception):
    """Base class of every error that polyattn raises on purpose."""


class SpecError(PolyattnError, ValueError):
    """A specification's text is wrong; shows the line with a caret under the place.

    Attributes:
        reason: what is wrong, and what was expected, without the picture of the line.
        line, column: the place, both counted from 1; 0 if the error has no single place.
    """

    def __init__(self, reason: str, source: str = "", line: int = 0, column: int = 0):
        self.reason, self.source, self.line, self.column = reason, source, line, column
        super().__init__(reason + _picture(source, line, column))

    def __reduce__(self):
        return type(self), (self.reason, self.source, self.line, self.column)


class SizeError(PolyattnError, ValueError):
    """A size is missing, unknown, contradictory, or not what a tensor's shape says."""


class BudgetError(PolyattnError, MemoryError):
    """An explicit tensor, an expansion or a search would not fit; says how large it would have been."""


class NotPolynomialError(PolyattnError, ValueError):
    """The operation needs a polynomial, and the specification applies functions (or has several degrees)."""


class ShardingError(PolyattnError, ValueError):
    """A layer cannot be computed on pieces of its positions; names the step and why."""


class InsertError(PolyattnError, ValueError):
    """Attention cannot be put after a submodule of a network, or taken out; the network is as it was."""


class MissingPackageError(PolyattnError, ImportError):
    """An optional package is not installed; says which extra of polyattn it comes with."""


class WeightsError(PolyattnError, ValueError):
    """A dictionary of weights is not what a published block has: lists the names and shapes that differ."""


class TrainingError(PolyattnError, ValueError):
    """A training cannot start or go on: settings that contradict each other, or data that are not as they should be."""


class CheckpointError(PolyattnError, RuntimeError):
    """A checkpoint cannot be written or read; says which ones there are, none of which is touched."""


class FittingError(PolyattnError, ValueError):
    """A tensor or layer cannot be factorised as asked: says what was found in it, and what would do."""


class ProofError(PolyattnError, ValueError):
    """A question to the prover makes no sense, or a certificate is not well formed."""


def _picture(source: str, line: int, column: int) -> str:
    if not (source and line):
        return ""
    rows = source.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    start = max(0, column - 61)
    shown = "".join(c if c.isprintable() else " " for c in row[start : start + 100])
    lead = "..." if start else ""
    return f"\n  line {line}: {lead}{shown}\n" + " " * (len(f"  line {line}: {lead}") + column - 1 - start) + "^"
