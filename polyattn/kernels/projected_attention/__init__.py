"""`projected_attention`: efficient attention with keys and queries projected inside the kernel.

It shares the programs of `linear_attention`, with tiles of keys or queries computed instead of read.
"""

from polyattn.kernels.projected_attention.op import projected_context, projected_query

__all__ = ["projected_context", "projected_query"]
