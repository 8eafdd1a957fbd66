"""Stage 4, lowering: `Plan` to `torch.fx.GraphModule`.

Input: an evaluation graph at given sizes. Output: a graph of plain torch operations (matmul, mul, sum, permute, ...)
without parameters of its own. What holds afterwards: the graph computes what the plan's nodes say, in any dtype, for
any batch, and refuses other sizes; its code is readable, and no name of a specification can become code.
"""

from polyattn.lowering.einsum import einsum
from polyattn.lowering.functions import FUNCTIONS, keep
from polyattn.lowering.lower import argument_names, lower, lower_backward, lower_with_kept
from polyattn.lowering.training import training_function

__all__ = [
    "FUNCTIONS",
    "argument_names",
    "einsum",
    "keep",
    "lower",
    "lower_backward",
    "lower_with_kept",
    "training_function",
]
