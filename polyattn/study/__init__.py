"""study: what layers cost, from their plans.

Input: plans. Output: where one overtakes another, as numbers and as formulas in the sizes. What holds afterwards: every
figure follows from the symbolic complexity of the plans; nothing is timed here.
"""

from polyattn.study.crossover import Crossover, crossover

__all__ = ["Crossover", "crossover"]
