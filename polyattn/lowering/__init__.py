"""Stage 4, lowering: `Plan` to `torch.fx.GraphModule`.

Input: an evaluation graph at given sizes. Output: a graph of plain torch operations (matmul, mul, sum, permute, ...)
without parameters of its own. Guarantees: the graph computes the plan's nodes, in any dtype, for any batch, and refuses
other sizes; its code is readable, and names of a specification cannot become code. Calibration of this machine and the
timing of candidates are here too, since they need torch.
"""

from typing import TYPE_CHECKING

from polyattn.lazy import attach

_ORIGINS = {
    "FUNCTIONS": "functions",
    "argument_names": "graphs",
    "as_function": "module",
    "calibrate": "devices",
    "calibrated": "devices",
    "candidates": "planner",
    "differentiable": "training",
    "einsum": "einsums",
    "forward_function": "training",
    "keep": "functions",
    "kind": "devices",
    "lower": "graphs",
    "lower_backward": "graphs",
    "lower_sharded": "sharded",
    "lower_with_kept": "graphs",
    "plan": "planner",
    "price_of": "planner",
    "whole_plan": "planner",
    "products_dtype": "devices",
    "training_function": "training",
    "version": "devices",
}
"""The module of each name, imported on first use, since `plan` needs no torch."""

__all__ = [
    "FUNCTIONS",
    "argument_names",
    "as_function",
    "calibrate",
    "calibrated",
    "candidates",
    "differentiable",
    "einsum",
    "forward_function",
    "keep",
    "kind",
    "lower",
    "lower_backward",
    "lower_sharded",
    "lower_with_kept",
    "plan",
    "price_of",
    "products_dtype",
    "training_function",
    "version",
    "whole_plan",
]

if TYPE_CHECKING:
    from polyattn.lowering.devices import calibrate, calibrated, kind, products_dtype, version
    from polyattn.lowering.einsums import einsum
    from polyattn.lowering.functions import FUNCTIONS, keep
    from polyattn.lowering.graphs import argument_names, lower, lower_backward, lower_with_kept
    from polyattn.lowering.module import as_function
    from polyattn.lowering.planner import candidates, plan, price_of, whole_plan
    from polyattn.lowering.sharded import lower_sharded
    from polyattn.lowering.training import differentiable, forward_function, training_function

__getattr__, __dir__ = attach(__name__, _ORIGINS)
