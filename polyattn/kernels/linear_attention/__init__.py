"""`linear_attention`: efficient attention's two softmaxes, each fused with the product after it."""

from polyattn.kernels.linear_attention.op import linear_attention, linear_context, linear_query

__all__ = ["linear_attention", "linear_context", "linear_query"]
