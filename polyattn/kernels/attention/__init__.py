"""`attention`: softmax attention with masks on torch's `scaled_dot_product_attention`, without its map in memory."""

from polyattn.kernels.attention.op import attention

__all__ = ["attention"]
