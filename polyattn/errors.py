"""The errors of polyattn, all derived from `PolyattnError`.

Every message names the place and the remedy; errors come before work is lost.
"""


class PolyattnError(Exception):
    """Base class of every error that polyattn raises on purpose."""


class SpecError(PolyattnError, ValueError):
    """A specification's text is wrong; shows the line with a caret under the place.

    Attributes:
        reason: the fault and the expected construct, without the picture of the line.
        line, column: the place, both counted from 1; 0 for errors without a single place.
    """

    def __init__(self, reason: str, source: str = "", line: int = 0, column: int = 0):
        self.reason, self.source, self.line, self.column = reason, source, line, column
        super().__init__(reason + _picture(source, line, column))

    # An exception is pickled by its args, which hold the finished message, not the four arguments.
    def __reduce__(self):
        return type(self), (self.reason, self.source, self.line, self.column)


class SizeError(PolyattnError, ValueError):
    """A size is missing, unknown or contradictory, or differs from a tensor's shape."""


class BudgetError(PolyattnError, MemoryError):
    """An explicit tensor, an expansion or a search would not fit; the message has its size."""


class NotPolynomialError(PolyattnError, ValueError):
    """The operation needs a polynomial, but the specification applies functions (or has several degrees)."""


class ShardingError(PolyattnError, ValueError):
    """A layer cannot be computed on shards of its positions; the message names the step and the reason."""


class RecurrenceError(PolyattnError, ValueError):
    """A specification cannot run position by position in constant memory; the message names the part at fault."""


class InsertError(PolyattnError, ValueError):
    """Attention cannot be inserted after a submodule of a network, or removed; the network is unchanged."""


class MissingPackageError(PolyattnError, ImportError):
    """An optional package is not installed; the message names the extra of polyattn to install."""


class WeightsError(PolyattnError, ValueError):
    """A dictionary of weights does not fit a published block; the message lists the differing names and shapes."""


class TrainingError(PolyattnError, ValueError):
    """Training cannot start or go on: contradictory settings, or unsuitable data."""


class CheckpointError(PolyattnError, RuntimeError):
    """A checkpoint cannot be written or read; the message lists the existing ones, all untouched."""


class FittingError(PolyattnError, ValueError):
    """A tensor or layer cannot be factorised as requested; the message has the finding and an alternative."""


class ReadingError(PolyattnError, ValueError):
    """Code cannot be read as an equation; the message has the line of code and the remedy."""


class OptimisingError(PolyattnError, ValueError):
    """A model cannot be optimised as requested; the message names the argument, and the model is as it was."""


class ProofError(PolyattnError, ValueError):
    """A question to the prover makes no sense, or a certificate is not well formed."""


def _picture(source: str, line: int, column: int) -> str:
    if not (source and line):
        return ""
    rows = source.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    # Long lines are cut around the place: 60 characters before it.
    start = max(0, column - 61)
    # A tab would move the caret.
    shown = "".join(c if c.isprintable() else " " for c in row[start : start + 100])
    lead = "..." if start else ""
    return f"\n  line {line}: {lead}{shown}\n" + " " * (len(f"  line {line}: {lead}") + column - 1 - start) + "^"
