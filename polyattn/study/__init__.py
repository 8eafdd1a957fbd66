"""study: what layers cost, from their plans.

Input: specifications and sizes, or plans. Output: tables, formulas, curves, diagrams. What holds afterwards: every
count follows from the plans' nodes; times are measured only where that is asked for. Pictures need the extra `study`
(matplotlib, pandas), which nothing here imports before it is used.
"""

from polyattn.study import pictures
from polyattn.study.complexity import complexity
from polyattn.study.crossover import Crossover, crossover
from polyattn.study.formulas import Formulas
from polyattn.study.study import QUANTITIES, Case, Study

__all__ = ["QUANTITIES", "Case", "Crossover", "Formulas", "Study", "complexity", "crossover", "pictures"]
