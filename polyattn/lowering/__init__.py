"""Stage 4, lowering: `Plan` to `torch.fx.GraphModule`.

Input: an evaluation graph at given sizes. Output: a graph of plain torch operations (matmul, mul, sum, permute, ...)
without parameters of its own. What holds afterwards: the graph computes what the plan's nodes say, in any dtype, for
any batch, and refuses other sizes; its code is readable, and no name of a specification can become code. What the
planner needs to know of this machine, and the timing of candidates on it, are here too, since they need torch.
"""

from polyattn.lowering.devices import calibrate, calibrated, kind, products_dtype, version
from polyattn.lowering.einsums import einsum
from polyattn.lowering.functions import FUNCTIONS, keep
from polyattn.lowering.graphs import argument_names, lower, lower_backward, lower_with_kept
from polyattn.lowering.module import as_function
from polyattn.lowering.planner import plan
from polyattn.lowering.sharded import lower_sharded
from polyattn.lowering.training import differentiable, training_function

__all__ = [
    "FUNCTIONS",
    "argument_names",
    "as_function",
    "calibrate",
    "calibrated",
    "differentiable",
    "einsum",
    "keep",
    "kind",
    "lower",
    "lower_backward",
    "lower_sharded",
    "lower_with_kept",
    "plan",
    "products_dtype",
    "training_function",
    "version",
]
