"""polyattn: attention layers as equations.

A researcher writes a layer as an equation; polyattn gives the interaction tensor it stands for, a proof that two
forms are equal, the cheapest order of contraction, a trainable module, and its cost. `Spec` is the place to start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str | None] = {
    "BudgetError": "errors",
    "CheckpointError": "errors",
    "FittingError": "errors",
    "InsertError": "errors",
    "MissingPackageError": "errors",
    "NotPolynomialError": "errors",
    "PolyattnError": "errors",
    "ProofError": "errors",
    "ShardingError": "errors",
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
    "prove": "proving",
    "verify": "proving",
    "Plan": "planning",
    "calibrate": "lowering",
    "einsum": "lowering",
    "lower": "lowering",
    "plan": "lowering",
    "catalog": None,
    "fitting": None,
    "nn": None,
    "parallel": None,
    "study": None,
    "testing": None,
    "training": None,
    "vision": None,
}
"""Public names and the stage that each comes from; None for the stages that are public as modules. Loaded on first
use, so that `import polyattn` is quick and needs only what is used."""

__all__ = [
    "BudgetError",
    "CheckpointError",
    "FittingError",
    "InsertError",
    "MissingPackageError",
    "NotPolynomialError",
    "Plan",
    "PolyattnError",
    "Polynomial",
    "ProofError",
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
    "lower",
    "nn",
    "parallel",
    "plan",
    "prove",
    "structure",
    "study",
    "symmetrise",
    "testing",
    "training",
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
        PolyattnError,
        ProofError,
        ShardingError,
        SizeError,
        SpecError,
        TrainingError,
        WeightsError,
    )
    from polyattn.lowering import calibrate, einsum, lower, plan
    from polyattn.planning import Plan
    from polyattn.proving import Verdict, prove, verify


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'polyattn' has no attribute {name!r}")
    stage = _PUBLIC[name]
    value = import_module(f"polyattn.{name}") if stage is None else getattr(import_module(f"polyattn.{stage}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
