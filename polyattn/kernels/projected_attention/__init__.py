"""`projected_attention`: efficient attention whose keys and queries are projections made on the way."""

from polyattn.kernels.projected_attention.op import projected_context, projected_query

__all__ = ["projected_context", "projected_query"]
