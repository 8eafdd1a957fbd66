"""study: the cost of layers, from their plans.

Input: specifications and sizes, or plans. Output: tables, formulas, curves, diagrams. Guarantees: every count follows
from the plans' nodes; times are measured on request only. Pictures need the extra `study` (matplotlib, pandas),
imported on first use.
"""

from typing import TYPE_CHECKING

from polyattn.lazy import attach
from polyattn.study import pictures
from polyattn.study.complexity import complexity
from polyattn.study.crossover import Crossover, crossover
from polyattn.study.formulas import Formulas
from polyattn.study.layer_crossover import LayerCrossover, layer_crossover
from polyattn.study.study import QUANTITIES, Case, Study

if TYPE_CHECKING:
    from polyattn.study.modules import Baseline

__all__ = [
    "QUANTITIES",
    "Baseline",
    "Case",
    "Crossover",
    "Formulas",
    "LayerCrossover",
    "Study",
    "complexity",
    "crossover",
    "layer_crossover",
    "pictures",
]

# Modules need torch, which other studies may do without.
__getattr__, __dir__ = attach(__name__, {"Baseline": "modules"})
