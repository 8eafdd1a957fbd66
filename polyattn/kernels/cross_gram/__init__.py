"""`cross_gram`: XᵀY of two tall matrices, with every position read once."""

from polyattn.kernels.cross_gram.op import cross_gram

__all__ = ["cross_gram"]
