"""polyattn: attention layers as equations.

A researcher writes a layer as an equation; polyattn gives the interaction tensor it stands for, a proof that two
forms are equal, the cheapest order of contraction, a trainable module, and its cost. `Spec` is the place to start.
"""

from typing import TYPE_CHECKING

from polyattn.lazy import attach

__version__ = "0.1.0"

_ORIGINS = {
    "BudgetError": "errors",
    "CheckpointError": "errors",
    "FittingError": "errors",
    "InsertError": "errors",
    "MissingPackageError": "errors",
    "NotPolynomialError": "errors",
    "OptimisingError": "errors",
    "PolyattnError": "errors",
    "ProofError": "errors",
    "ReadingError": "errors",
    "ShardingError": "errors",
    "RecurrenceError": "errors",
    "SizeError": "errors",
    "SpecError": "errors",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "Polynomial": "algebra",
    "Spec": "algebra",
    "apply_interaction": "algebra",
    "structure": "algebra",
    "symmetrise": "algebra",
    "Verdict": "proving",
    "prove": "reading",
    "verify": "verifying",
    "Plan": "planning",
    "calibrate": "lowering",
    "einsum": "lowering",
    "lower": "lowering",
    "plan": "reading",
    "Optimised": "optimising",
    "optimise": "optimising",
    "Reading": "reading",
    "read": "reading",
    "relate": "relating",
    "catalog": "catalog",
    "fitting": "fitting",
    "invariants": "relating",
    "nn": "nn",
    "parallel": "parallel",
    "study": "study",
    "testing": "testing",
    "training": "training",
    "training_function": "lowering",
    "vision": "vision",
}
"""The stage of each public name. `import polyattn` is quick, since a stage is imported with the first use of a name."""

__all__ = [
    "BudgetError",
    "CheckpointError",
    "FittingError",
    "InsertError",
    "MissingPackageError",
    "NotPolynomialError",
    "Optimised",
    "OptimisingError",
    "Plan",
    "PolyattnError",
    "Polynomial",
    "ProofError",
    "Reading",
    "ReadingError",
    "RecurrenceError",
    "ShardingError",
    "SizeError",
    "Spec",
    "SpecError",
    "TrainingError",
    "Verdict",
    "WeightsError",
    "apply_interaction",
    "calibrate",
    "catalog",
    "einsum",
    "fitting",
    "invariants",
    "lower",
    "nn",
    "optimise",
    "parallel",
    "plan",
    "prove",
    "read",
    "relate",
    "structure",
    "study",
    "symmetrise",
    "testing",
    "training",
    "training_function",
    "verify",
    "vision",
]

if TYPE_CHECKING:
    from polyattn import catalog, fitting, nn, parallel, study, testing, training, vision
    from polyattn.algebra import Polynomial, Spec, apply_interaction, structure, symmetrise
    from polyattn.errors import (
        BudgetError,
        CheckpointError,
        FittingError,
        InsertError,
        MissingPackageError,
        NotPolynomialError,
        OptimisingError,
        PolyattnError,
        ProofError,
        ReadingError,
        RecurrenceError,
        ShardingError,
        SizeError,
        SpecError,
        TrainingError,
        WeightsError,
    )
    from polyattn.lowering import calibrate, einsum, lower, training_function
    from polyattn.optimising import Optimised, optimise
    from polyattn.planning import Plan
    from polyattn.proving import Verdict
    from polyattn.reading import Reading, plan, prove, read
    from polyattn.relating import invariants, relate
    from polyattn.verifying import verify

__getattr__, __dir__ = attach(__name__, _ORIGINS)
