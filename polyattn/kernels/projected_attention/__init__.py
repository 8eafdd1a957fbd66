"""`projected_attention`: efficient attention whose keys and queries are projections made on the way.

Its programs are those of `linear_attention`, which make a tile of keys or queries where they would read one.
"""

from polyattn.kernels.projected_attention.op import projected_context, projected_query

__all__ = ["projected_context", "projected_query"]
