"""Stage 3, planning: `Spec` to `Plan`, the cheapest evaluation graph at given sizes.

Input: a specification and numbers for its sizes. Output: nodes that contract one or two operands, add, or apply a
function, each counted in multiply-accumulates. Guarantees: the graph computes the specification's polynomial exactly;
it needs at most as many multiply-accumulates as the author's order. No torch.
"""

from polyattn.planning.backward import Backward
from polyattn.planning.costs import CPU, DEVICES, Device
from polyattn.planning.graph import Graph, Step
from polyattn.planning.plan import Plan
from polyattn.planning.search import OBJECTIVES, Question, question, ranked_plans, with_backward
from polyattn.planning.sharding import Link, Sharded, shard
from polyattn.planning.steps import (
    BATCH,
    Add,
    Apply,
    Coefficient,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Operand,
    Pullback,
)

__all__ = [
    "BATCH",
    "CPU",
    "DEVICES",
    "OBJECTIVES",
    "Add",
    "Apply",
    "Backward",
    "Coefficient",
    "Constant",
    "Contract",
    "Convolve",
    "Device",
    "Graph",
    "Identity",
    "Leaf",
    "Link",
    "Operand",
    "Plan",
    "Pullback",
    "Question",
    "Sharded",
    "Step",
    "question",
    "ranked_plans",
    "shard",
    "with_backward",
]
